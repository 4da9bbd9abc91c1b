// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package source brings knocks that are packets from the network to the
// gatekeeper.
//
//	Source ──► Switch ──► Queue ──► Dispatcher ──► Gatekeeper
//	reads      swaps      drops     verifies       decides
//
// A [Source] reads packets, on one goroutine that nothing may hold up: what it
// calls copies the packet and returns. A [Switch] stands behind a source that
// outlives configurations and passes packets on to the [Queue] of the present one,
// so that a reload loses none. A queue is bounded, drops and counts what does not
// fit, and serves addresses that knocked successfully lately first. Its workers
// hand packets to a [Dispatcher], which finds out what kind of knock a packet may
// be, verifies it and asks the gatekeeper. Nothing is ever sent.
//
// # Order
//
// Packets of one socket go to one worker, so they are decided in the order in which
// they came; of pyknock, which closes as well as opens and sends each datagram from
// a socket of its own, and of TCP, whose crafted SYNs come in sequences from changing
// ports, all packets of one address do. So do all packets where there are doors.
//
// # Load
//
// What strangers cost is bounded: the memory of a queue is what its places hold,
// and of a stranger nothing is remembered but in a Limiter's fixed tables. Only
// while a queue is over half full, packets from addresses over their limit get no
// place; see knockcore.Limiter for why not earlier.
package source
