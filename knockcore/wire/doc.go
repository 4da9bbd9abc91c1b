// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package wire turns the bytes of knocks into verified frames and back, one file
// for each dialect. It knows keys and layouts only: no sockets, no clock, no
// memory of nonces. Numbers are big endian unless a dialect says otherwise.
//
// # TCP frame v1
//
// The first bytes of a connection (tcp-auth-frame-v1, libknock.md section 2). The
// header is in clear and recognisable; what follows is XChaCha20-Poly1305 under a
// key derived from secret, nonce and hint, with the header as additional data.
// The hint is an HMAC over nonce and protected port: it tells the server whose
// secret to try. See [TCPFrame].
//
//	0    1     2        3         19        27          29
//	| 01 | flags | 00   | nonce 16 | hint 8 | length 2 | sealed: length bytes ...
//
//	sealed: | ID hash 16 | time 8 | port 2 | method 1+n | session 1+n | extensions 2+n | tag 16
//
// # TCP envelope v2
//
// The same content, but every byte looks random and the whole has one of five
// lengths (tcp-auth-envelope-v2, libknock.md section 3). The length, called
// bucket, appears nowhere: it is part of the additional data, and the receiver
// tries the buckets in ascending order as bytes arrive. In hint mode none the
// hint is absent and every secret is tried.
//
//	0           24       32                                 128, 192, 256, 384 or 512
//	| prefix 24 | hint 8 | sealed: the rest                 |
//
//	sealed: | 02 | flags | time 8 | ID hash 16 | port 2 | method 1+n | session 1+n
//	        | extensions 2+n | padding 2+n | tag 16
//
// [StreamConfig.NewStream] verifies either at the head of a stream that may be
// anything.
//
// # Server proof
//
// What the server answers to a TCP frame that asks for it (libknock.md section 4);
// see [TCPFrame.ServerProof].
//
//	0             1    2               18
//	| version     | 50 | nonce[:16]    | HMAC 32 |
package wire
