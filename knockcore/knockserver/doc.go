// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package knockserver is the side that is knocked at, for Go programs without
// Caddy: connections reach the program only behind a valid frame.
//
// [NewListener] wraps a listener, for servers of any protocol:
//
//	clients, err := knockserver.NewClients(&knockcore.Client{ID: "alice", Secrets: []knockcore.Secret{secret}})
//	...
//	guarded, err := knockserver.NewListener(listener, knockserver.Config{Clients: clients})
//	...
//	err = http.Serve(guarded, handler)
//
// [Server.Auth] does the same for one connection that is there already. [PeerOf]
// says who is on the other side. Clients make such connections with package
// knockclient, or with libknock.
//
// # What is promised
//
// Accept returns connections whose frame was authentic, made for this port, in
// time, never accepted before, and from a client that may reach the service;
// nothing else. What follows the frame is read from the connection as if there
// had been no frame. A client that is removed loses its connections.
//
// Strangers cannot starve clients: each connection is decided by itself, the
// undecided ones are bounded, and when there are too many, the one that has said
// nothing for longest makes room. Nothing is written to a stranger. Unless there
// is a cover ([Config.OnRefused]), all strangers are closed at the same time after
// they came, whatever they sent.
//
// A frame says who opened the connection; it neither encrypts nor authenticates
// what follows. Run TLS, SSH or the like inside.
//
// # Parts
//
// [Checker] decides on one stream, [Pending] bounds the undecided ones, [Guard]
// says what becomes of each connection, and a [Listener] does that for all that
// come. The Caddy modules of this project use them too.
package knockserver
