// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package knockcore is the domain of caddy-knock: who may knock, what a knock
// opens, and the one object that decides.
//
// It is pure Go: no Caddy, no logging library, no metrics library, and no
// goroutine that the caller did not ask for.
//
// # Words
//
// A client is who may knock: an ID and its credentials. A service is what is
// protected. A method is how a knock arrives, a frame is the bytes of one
// knock, a [Knock] is a verified frame. The [Gatekeeper] turns knocks into
// grants; a [Grant] says who, from where, to which service, until when. A
// window is the opening in a firewall that a grant keeps open. A [Reason] says
// why a knock was refused. The cover is the route that strangers get.
//
// # Flow
//
//	source → wire (decode, verify) → Gatekeeper.Admit → Grant → table, firewall, store, observer
//
// Every way to knock ends in [Gatekeeper.Admit]; everything that a knock
// changes follows from the Grant that it returns. Nothing else opens anything.
//
// # Order of checks
//
// Cheap ones first: length, magic, keyed check (hint or HMAC), only then the
// AEAD. Then, in Admit: what the client may do (method, address, expiry,
// service), the time window, and last the nonce, which is spent exactly once.
// A refusal before the nonce is spent leaves it unspent, so nobody can burn the
// frame of somebody else by delivering it from the wrong place.
package knockcore
