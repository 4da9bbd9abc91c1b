// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// The flags of a TCP header, as Packet.TCPFlags has them.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// Filter says which packets a passive source lets through, in the kernel: those
// that pass one of its tests. An empty one lets nothing through.
type Filter []FilterTest

// FilterTest is passed by packets of a protocol, TCP or UDP, to a range of ports.
// Of TCP only those count whose flags under Mask are Want; the zero values accept
// all flags.
type FilterTest struct {
	Ports      knockcore.PortRange
	Mask, Want uint8
}

// SYNTest is passed by what begins a connection to one of the ports, or looks so
// to libknock: SYN is set, ACK and RST are clear.
func SYNTest(ports knockcore.PortRange) FilterTest {
	return FilterTest{Ports: ports, Mask: SYN | ACK | RST, Want: SYN}
}

// Passes reports whether a packet to the port, with these flags if it is TCP,
// passes the test.
func (t FilterTest) Passes(proto knockcore.Protocol, port uint16, flags uint8) bool {
	return t.Ports.Protocol == proto && t.Ports.Low <= port && port <= t.Ports.High && (proto != knockcore.TCP || flags&t.Mask == t.Want)
}

// Passes reports whether a packet passes one of the tests.
func (f Filter) Passes(proto knockcore.Protocol, port uint16, flags uint8) bool {
	for _, t := range f {
		if t.Passes(proto, port, flags) {
			return true
		}
	}
	return false
}

// Validate reports the first thing wrong with the filter.
func (f Filter) Validate() error {
	for _, t := range f {
		switch p := t.Ports; {
		case p.Protocol != knockcore.TCP && p.Protocol != knockcore.UDP:
			return errors.New("only tcp and udp ports can be watched")
		case p.Low > p.High:
			return fmt.Errorf("ports %d-%d end before they begin", p.Low, p.High)
		case p.Protocol == knockcore.UDP && t.Mask != 0, t.Want&^t.Mask != 0:
			return fmt.Errorf("a test of flags %#x/%#x is none", t.Want, t.Mask)
		}
	}
	return nil
}

// Simplify sorts the tests, joins ranges and drops those that others contain.
func (f Filter) Simplify() Filter {
	list := slices.Clone(f)
	slices.SortFunc(list, func(a, b FilterTest) int {
		return cmp.Or(cmp.Compare(a.Ports.Protocol, b.Ports.Protocol), cmp.Compare(a.Mask, b.Mask), cmp.Compare(a.Want, b.Want),
			cmp.Compare(a.Ports.Low, b.Ports.Low), cmp.Compare(b.Ports.High, a.Ports.High))
	})
	var joined Filter
	for _, t := range list {
		if n := len(joined); n > 0 {
			last := &joined[n-1]
			if last.sameFlags(t) && int(t.Ports.Low) <= int(last.Ports.High)+1 {
				last.Ports.High = max(last.Ports.High, t.Ports.High)
				continue
			}
		}
		joined = append(joined, t)
	}
	var out Filter
	for i, t := range joined {
		if !slices.ContainsFunc(joined, func(o FilterTest) bool { return o != joined[i] && o.contains(t) }) {
			out = append(out, t)
		}
	}
	return out
}

func (t FilterTest) sameFlags(o FilterTest) bool {
	return t.Ports.Protocol == o.Ports.Protocol && t.Mask == o.Mask && t.Want == o.Want
}

// contains reports whether whatever passes o passes t.
func (t FilterTest) contains(o FilterTest) bool {
	return t.Ports.Protocol == o.Ports.Protocol && t.Ports.Low <= o.Ports.Low && o.Ports.High <= t.Ports.High &&
		t.Mask&^o.Mask == 0 && o.Want&t.Mask == t.Want
}

// Watching is what one configuration wants to see of a passive source.
type Watching struct {
	// Filter says which packets.
	Filter Filter
	// Drop are ports whose packets are also dropped, where the source can.
	Drop []knockcore.PortRange
	// Interfaces are the names of the devices by which they come in; a trailing *
	// stands for any ending. Empty means all but loopback.
	Interfaces []string
	// Targets are addresses besides those of this host to which they may go.
	Targets []netip.Prefix
}

// Passive is a Source that watches packets on their way, whoever they are for.
type Passive interface {
	Source
	// Watch lets through what is to be seen, besides what other calls want to see,
	// until it is released.
	Watch(w Watching) (release func() error, err error)
}

// watchers are the configurations that use a passive source.
type watchers struct {
	mu    sync.Mutex
	list  []*Watching
	apply func([]*Watching) error // called with the lock held
}

// Watch implements Passive.
func (s *watchers) Watch(w Watching) (release func() error, err error) {
	if err := w.Filter.Validate(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, &w)
	if err := s.apply(s.list); err != nil {
		s.list = s.list[:len(s.list)-1]
		return nil, err
	}
	return sync.OnceValue(func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.list = slices.DeleteFunc(s.list, func(o *Watching) bool { return o == &w })
		return s.apply(s.list)
	}), nil
}

// MatchesInterface reports whether the name of a device is one of those listed, in
// which a trailing * stands for any ending.
func MatchesInterface(list []string, name string) bool {
	return slices.ContainsFunc(list, func(want string) bool {
		stem, wild := strings.CutSuffix(want, "*")
		return name == want || wild && strings.HasPrefix(name, stem)
	})
}
