// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package relay moves bytes both ways between two stream connections, downstream
// and upstream, for thousands of pairs at once. It knows nothing of Caddy.
//
//	up, upstream, err := relay.Dial(ctx, opts)
//	…
//	stats := relay.Run(ctx, down, head, up, opts)
//
// # What a relay holds
//
// Two goroutines, the caller's among them, and its two sockets. On Linux, between
// bare TCP and unix stream sockets, bytes go from socket to socket through a pipe
// without entering user space. The pipe comes from a small pool when there is
// something to move and goes back as soon as the source has no more, so that a
// relay that waits has neither pipe nor buffer. (io.Copy splices too, with one pipe
// per direction for the whole connection: six descriptors for a pair, not two.)
// With a peer too slow for the other one, a direction waits without a pipe as well,
// and then takes no more from the source than the peer has room for. If no pipe is
// to be had, bytes are copied.
//
// On other systems with unix sockets, bytes are copied, with a buffer that is taken
// once there is something to read. A connection with a wrapper around it, such as
// TLS, and every connection on Windows can only be read with a buffer at hand: 1 KiB
// while little comes, 16 KiB otherwise; a direction that falls silent after much
// keeps the latter.
//
// # How a relay ends
//
// An end (FIN) is passed on when all before it is delivered, and leaves the other
// direction alone. A reset, or another failure, ends both directions, and is a reset
// to the other peer, who first gets what had been sent before (for which it has a
// second). Cut resets both. An idle timeout ends both in an orderly way, unless
// there are bytes that could not be delivered.
package relay
