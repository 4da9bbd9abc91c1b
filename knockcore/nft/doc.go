// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package nft keeps services closed with nftables, but for windows.
//
// It owns one table of family inet, which looks like this (`nft list table inet
// caddy_knock`, shortened):
//
//	set ssh-4    { type ipv4_addr; flags timeout; }      # exact addresses
//	set ssh-6    { type ipv6_addr; flags timeout; }
//	set ssh-6-64 { type ipv6_addr; flags timeout; }      # first addresses of /64s
//	chain knock {
//		type filter hook prerouting priority -110; policy accept;
//		iifname "lo" accept
//		goto ports
//	}
//	chain ports {
//		meta l4proto . th dport vmap { tcp . 22 : goto svc-ssh }
//	}
//	chain svc-ssh {
//		tcp flags & (syn | ack) != syn accept            # drain: only new connections are gated
//		fib daddr type { local, broadcast, anycast, multicast } goto win-ssh
//	}
//	chain win-ssh {
//		ip saddr @ssh-4 counter name ssh-open accept
//		ip6 saddr @ssh-6 counter name ssh-open accept
//		ip6 saddr & ffff:ffff:ffff:ffff:: @ssh-6-64 counter name ssh-open accept
//		counter name ssh-shut drop
//	}
//
// The hook stands after conntrack (-200) and before destination NAT (-100), so
// that ports published by Docker are closed as well, and asks the routing table
// whether the packet is for this host, so that traffic which is forwarded to the
// same port numbers elsewhere passes. `accept` ends only this chain: rules of
// other tables still decide.
//
// # Windows
//
// A window is an element of a hash set with a timeout. The kernel closes it,
// whether we live or not. Every prefix length has a set of its own, matched
// after masking the address; interval sets are slow, and refuse a prefix that
// overlaps another. A window is moved by removing and adding its element in one
// transaction, because adding an element that is there does not refresh it.
//
// # One owner
//
// One goroutine talks to the kernel. Calls that come together, or while a commit
// is under way, go out in one commit; if that fails each is tried alone, so that
// an error reaches exactly the caller concerned.
//
// # Healing
//
// The engine listens to changes of the rule set. If our table, a chain or a rule
// of it goes, or something is added to it, the table is rebuilt in one
// transaction, and windows that still live are put back; a check every few seconds
// makes sure. An element that somebody else removes stays removed: that is how an
// operator closes a window by hand.
//
// A repair takes about a millisecond, in which the services are open; with
// Config.Protect the kernel lets nobody else change the table, and nothing is.
//
// # What a scan sees
//
// A service that drops looks filtered to a SYN scan, one that rejects looks
// closed. Where established flows drain, packets that do not begin a connection
// reach the host, whose own answers (a reset, say) tell that it is there and that
// something gates: they let nobody in.
//
// # Cut
//
// A service that cuts (Service.CutOnExpire) has no rule for established flows:
// every packet of a client needs a live window, so that flows stop with it,
// conntrack or not, process or not. That includes answers to connections which
// the host itself makes from the service's port. TCP connections of the host that
// were open when the service was first gated are kept, by their addresses and
// ports; those that it forwards are not.
//
// # Bans
//
// With Config.Bans a chain before the gate drops what banned prefixes send to some
// ports. It looks like this:
//
//	set banned.addresses-4    { type ipv4_addr; flags timeout; }
//	set banned.addresses-6-64 { type ipv6_addr; flags timeout; }
//	chain bans {
//		type filter hook prerouting priority -111; policy accept;
//		iifname "lo" accept
//		goto bans-ports                                  # by port, then whether it is for us
//	}
//	chain win-banned.addresses {
//		ip saddr @banned.addresses-4 goto bans-spare
//		ip6 saddr & ffff:ffff:ffff:ffff:: @banned.addresses-6-64 goto bans-spare
//	}
//	chain bans-spare {
//		ip saddr @ssh-4 accept                           # who has a window of any service
//		counter name banned drop
//	}
//
// Services that the gate does not close have sets of windows, too, so that whoever
// holds a grant for them is spared. Bans are windows to us: the kernel ends them, they
// are adopted and put back.
//
// # Sets of the operator's
//
// With Config.Sets there is no table and no rule of ours: windows are elements,
// with a comment, in sets that the operator's rules use.
package nft
