// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package netlab builds small networks out of Linux network namespaces, for
// tests that need a real kernel: a real firewall, real conntrack, real packets,
// and nothing that leaves the machine.
//
//	netlab.Need(t, "nft", "conntrack")
//	lab := netlab.New(t)
//	host, guest := lab.NS("host"), lab.NS("guest")
//	lab.Link(host, []string{"192.0.2.1/24", "2001:db8::1/64"}, guest, []string{"192.0.2.2/24", "2001:db8::2/64"})
//	host.Echo("tcp", "192.0.2.1:22")
//	if got := guest.Probe("tcp", "192.0.2.1:22"); got != netlab.Open { … }
//
// Namespaces, links and sockets go away with the test, also when it fails, and
// those of a test process that was killed go away with the next [New].
//
// The package does its work on Linux only; elsewhere it is empty but for this
// comment, so that tests which use it carry a linux build tag or file suffix.
package netlab
