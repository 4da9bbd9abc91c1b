// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package knockclient is the side that knocks: it proves itself at the head of a
// TCP connection and leaves the connection to the application.
//
// [Dialer] is a drop-in for net.Dialer, over any base dialer:
//
//	d := &knockclient.Dialer{Config: knockclient.Config{ClientID: "alice", Secret: secret, ServerProof: true}}
//	client := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
//
// [Auth] does the same on a connection that is there already. [Sender] knocks by
// datagram, and so does a Dialer with an [Opening] before each connection.
// [Profiles] are the files in the user's configuration directory that hold the
// same settings for the command line.
//
// # What is promised
//
// The frame is the first thing on the wire, in one write. Without a server proof
// the client waits for nothing: a server that refuses shows it only by what it
// does later (it passes the connection to its cover, or closes it). With
// [Config.ServerProof] no byte of the application leaves before the server has
// proved that it knows the secret.
//
// A frame is good for one connection within the server's time window (30
// seconds), so the clock must be right. Somebody on the path who keeps a frame
// from arriving can deliver it in the client's place: what runs inside the
// connection must be encrypted and authenticated by itself.
package knockclient
