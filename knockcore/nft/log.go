// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// logPriority is that of a chain that logs: before anything that others put at
// the hook, so that it sees what they drop.
const logPriority = -450

// LogRule says which packets to this host go to a group of NFLOG.
type LogRule struct {
	// Group is the group; see nfnetlink_log.
	Group uint16
	// Size is how many bytes of a packet are handed over at most.
	Size uint32
	// Ports are the destination ports, of TCP or UDP. Of TCP only those packets count
	// whose flags under Mask are Want.
	Ports      knockcore.PortRange
	Mask, Want uint8
	// Interfaces are as in Config.
	Interfaces []string
	// Drop also drops the packets, so that the host does not answer that a port is
	// closed.
	Drop bool
	// Targets are addresses besides those of this host to which the packets may go.
	Targets []netip.Prefix
}

func (r LogRule) validate() error {
	switch {
	case r.Ports.Protocol != knockcore.TCP && r.Ports.Protocol != knockcore.UDP || r.Ports.Low > r.Ports.High:
		return errors.New("a log rule needs ports of TCP or UDP")
	case r.Want&^r.Mask != 0 || r.Mask != 0 && r.Ports.Protocol != knockcore.TCP:
		return fmt.Errorf("a log rule cannot test flags for %#x/%#x", r.Want, r.Mask)
	}
	for _, name := range r.Interfaces {
		if err := ValidateInterface(name); err != nil {
			return err
		}
	}
	return nil
}

// logTo hands the packet to a group.
type logTo struct {
	group uint16
	size  uint32
}

// logOnly makes the table of log rules. A packet that several of them fit is logged
// once.
func (rs *ruleset) logOnly(cfg Config) *ruleset {
	rs.sets = append(rs.sets, setSpec{markerSet, kindMark, markerComment})
	base := chain{name: baseChain, hook: HookPrerouting, priority: logPriority}
	for _, r := range cfg.Log {
		to := &logTo{group: r.Group, size: r.Size}
		then := verdict{}
		if r.Drop {
			then.kind = toDrop
		}
		what := []match{matchPorts{r.Ports}}
		if r.Mask != 0 {
			what = append(what, matchFlags{r.Mask, r.Want})
		}
		var from [][]match
		for _, name := range r.Interfaces {
			from = append(from, []match{matchInterface{name}})
		}
		if len(from) == 0 {
			from = append(from, []match{matchNotInterface{"lo"}})
		}
		for _, device := range from {
			when := append(append([]match{}, what...), device...)
			base.rules = append(base.rules, rule{when: append(when[:len(when):len(when)], matchOwn{}), log: to, then: then})
			for _, p := range r.Targets {
				base.rules = append(base.rules, rule{when: append(when[:len(when):len(when)], matchAddr{false, p}), log: to, then: then})
			}
		}
	}
	rs.chains = append(rs.chains, base)
	return rs
}

func (matchOwn) text() string { return "fib daddr type local" }

func (m matchFlags) text() string { return fmt.Sprintf("tcp flags & %#x == %#x", m.mask, m.want) }

func (m matchNotInterface) text() string { return fmt.Sprintf("iifname != %q", m.name) }

func (l *logTo) text() string {
	return fmt.Sprintf("log group %d snaplen %d queue-threshold 1", l.group, l.size)
}
