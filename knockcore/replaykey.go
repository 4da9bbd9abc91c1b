// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import "crypto/sha256"

// ReplayKey identifies one frame of one client to the replay guard: the first
// 16 bytes of SHA-256 over what makes the frame the same frame, in decoded
// form. It is never made of the raw datagram, which can often be written in
// several ways (base64 padding, trailing bytes).
type ReplayKey [16]byte

// ReplayClass separates the nonces of protocols that draw them independently.
type ReplayClass byte

// The replay classes.
const (
	ReplayTCP     ReplayClass = 't' // libknock TCP frames: v1 nonce, v2 prefix_random
	ReplayUDP     ReplayClass = 'u' // libknock datagrams: header nonce
	ReplaySYN     ReplayClass = 's' // libknock SYN tags
	ReplayPyknock ReplayClass = 'p' // pyknock: the 32-byte authenticator
	ReplayFwknop  ReplayClass = 'f' // fwknop: the decoded packet
)

// NewReplayKey makes the key of a frame. The same nonce of two clients makes
// two keys.
func NewReplayKey(class ReplayClass, clientID string, nonce []byte) ReplayKey {
	var buf [512]byte
	b := append(buf[:0], byte(class))
	b = append(b, clientID...)
	b = append(b, 0)
	b = append(b, nonce...)
	sum := sha256.Sum256(b)
	return ReplayKey(sum[:16])
}
