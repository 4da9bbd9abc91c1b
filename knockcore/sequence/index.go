// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"cmp"
	"slices"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// index finds the doors that a packet's port belongs to. It is immutable; when a
// one-time door moves on, a new one takes its place.
type index struct {
	doors  []*door
	bits   [2][1 << 16 / 64]uint64 // ports of any door: TCP, UDP
	hits   map[uint32][]hit
	strict bool // some door is
}

// hit is a door that has a port, and at which of its steps.
type hit struct {
	door *door
	mask uint32
}

func newIndex(doors []*door) *index {
	ix := &index{doors: doors, hits: make(map[uint32][]hit)}
	for _, d := range doors {
		ix.strict = ix.strict || d.strict && len(d.steps) > 0
		for i, s := range d.steps {
			key := portKey(s.Protocol, s.Port)
			ix.bits[protoIndex(s.Protocol)][s.Port/64] |= 1 << (s.Port % 64)
			list := ix.hits[key]
			if n := len(list); n > 0 && list[n-1].door == d {
				list[n-1].mask |= 1 << i
			} else {
				ix.hits[key] = append(list, hit{door: d, mask: 1 << i})
			}
		}
	}
	return ix
}

func portKey(p knockcore.Protocol, port uint16) uint32 { return uint32(p)<<16 | uint32(port) }

func protoIndex(p knockcore.Protocol) int {
	if p == knockcore.UDP {
		return 1
	}
	return 0
}

// lookup returns the doors with the packet's port, without looking at flags and
// targets.
func (ix *index) lookup(p *Packet) []hit {
	if ix.bits[protoIndex(p.Protocol)][p.DstPort/64]&(1<<(p.DstPort%64)) == 0 {
		return nil
	}
	return ix.hits[portKey(p.Protocol, p.DstPort)]
}

// concerns reports whether Add has anything to do for the packet.
func (ix *index) concerns(p *Packet) bool {
	if ix.strict {
		return true
	}
	for _, h := range ix.lookup(p) {
		if h.door.accept(p, h.mask) != 0 {
			return true
		}
	}
	return false
}

// Ports returns the ports that a packet source has to deliver, as ranges in
// order, TCP before UDP, neighbours joined. The ports of all unused sequences of
// a one-time file are among them, so that a kernel filter need not follow each
// opening.
func (m *Matcher) Ports() []knockcore.PortRange {
	ports := make(map[uint32]bool)
	for _, d := range m.index.Load().doors {
		list := [][]Step{d.steps}
		if d.pub.OneTime != nil {
			list = append(list, d.pub.OneTime.unused()...)
		}
		for _, steps := range list {
			for _, s := range steps {
				ports[portKey(s.Protocol, s.Port)] = true
			}
		}
	}
	var ranges []knockcore.PortRange
	for key := range ports {
		proto, port := knockcore.Protocol(key>>16), uint16(key)
		ranges = append(ranges, knockcore.PortRange{Protocol: proto, Low: port, High: port})
	}
	slices.SortFunc(ranges, func(a, b knockcore.PortRange) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Low, b.Low))
	})
	joined := ranges[:0]
	for _, r := range ranges {
		if n := len(joined); n > 0 && joined[n-1].Protocol == r.Protocol && joined[n-1].High+1 == r.Low {
			joined[n-1].High = r.High
		} else {
			joined = append(joined, r)
		}
	}
	return joined
}

// TCPFlags returns the flag test that every TCP packet must pass to concern any
// door: what a kernel filter may drop on its own. Zero means none.
func (m *Matcher) TCPFlags() Flags {
	mask, want := uint8(allFlags), uint8(0)
	first := true
	add := func(f Flags) {
		if first {
			mask, want, first = f.Mask, f.Want, false
		}
		mask &= f.Mask &^ (f.Want ^ want)
		want &= mask
	}
	for _, d := range m.index.Load().doors {
		if d.strict || d.pub.OneTime != nil {
			add(d.flags)
		}
		for _, s := range d.steps {
			if s.Protocol == knockcore.TCP {
				add(s.Flags)
			}
		}
	}
	if first {
		return Flags{}
	}
	return Flags{Mask: mask, Want: want}
}

// WantsAll reports whether a door is strict, so that hits on closed ports of no
// door should reach Add too: packets that pass TCPFlags, or UDP, and belong to
// no connection that is served.
func (m *Matcher) WantsAll() bool { return m.index.Load().strict }
