// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// ruleset is a table as we want it: written as text by print.go and sent to the
// kernel by encode_linux.go.
type ruleset struct {
	table    string
	sets     []setSpec
	counters []string
	chains   []chain
}

// portTargets are the ports that a map leads to their chains.
func (rs *ruleset) portTargets() (targets []portTarget) {
	for _, ch := range rs.chains {
		for _, r := range ch.rules {
			if ch.name == portsChain && r.then.kind == toPorts {
				targets = append(targets, r.then.ports...)
			}
		}
	}
	return targets
}

// setKind is what a set holds.
type setKind uint8

const (
	kindMark  setKind = iota // the marker of our table
	kindAddr4                // ipv4_addr
	kindAddr6                // ipv6_addr
	kindConn4                // the addresses and ports of a TCP connection
	kindConn6
)

type setSpec struct {
	name    string
	kind    setKind
	comment string
}

// timed reports whether the elements have timeouts.
func (s setSpec) timed() bool { return s.kind != kindMark }

type chain struct {
	name string
	// hook and priority are set for the base chain.
	hook     Hook
	priority int
	rules    []rule
}

// rule is: when all matches hold, count, then decide.
type rule struct {
	when    []match
	counter string
	log     *logTo
	then    verdict
	comment string
}

// match is a condition.
type match interface{ text() string }

type (
	// matchInterface: it came in on a device; a trailing * stands for any ending.
	matchInterface struct{ name string }
	// matchProtocol: it is TCP, or UDP.
	matchProtocol struct{ proto knockcore.Protocol }
	// matchNotSyn: it is TCP and does not begin a connection.
	matchNotSyn struct{}
	// matchState: conntrack says so.
	matchState struct{ state ctState }
	// matchReply: conntrack says that it answers what went the other way.
	matchReply struct{}
	// matchToHost: it is addressed to this host, before destination NAT.
	matchToHost struct{}
	// matchAddr: the source or destination is in the prefix.
	matchAddr struct {
		source bool
		prefix netip.Prefix
	}
	// matchWindow: the source, masked, is in the set of the group.
	matchWindow struct{ group group }
	// matchConn: the connection is in the set.
	matchConn struct {
		set string
		v6  bool
	}
	// matchFlags: the TCP flags under the mask are as wanted.
	matchFlags struct{ mask, want uint8 }
	// matchNotInterface: it came in on another device.
	matchNotInterface struct{ name string }
	// matchOwn: it is addressed to one host, and that is this one.
	matchOwn struct{}
	// matchPorts: the destination port is in the range.
	matchPorts struct{ ports knockcore.PortRange }
)

type ctState string

const (
	ctEstablished ctState = "established"
	ctInvalid     ctState = "invalid"
)

// verdict is what a rule decides.
type verdict struct {
	kind  verdictKind
	chain string
	// ports, for toPorts: where which port goes.
	ports []portTarget
}

type portTarget struct {
	proto knockcore.Protocol
	port  uint16
	chain string
}

type verdictKind uint8

const (
	toAccept verdictKind = iota
	toDrop
	toReset  // reject with a TCP reset
	toRefuse // reject with ICMP port unreachable
	toContinue
	toChain // goto
	toPorts // goto by protocol and port
)
