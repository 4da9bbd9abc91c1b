// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"net/netip"
	"slices"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// oracle says what the package comment says, by brute force over all that a
// source ever sent: it has no stages and forgets nothing.
type oracle struct {
	doors   []*door
	ring    int
	sources map[netip.Addr]*oracleSource
}

// nothing: a packet that concerns no attempt.
const nothing verdict = 100

type oracleSource struct {
	packets []Packet
	recent  []int // packets that were steps
	doors   []oracleDoor
}

type oracleDoor struct {
	after   int          // attempts that begin here or before are gone
	gone    map[int]bool // as are those that begin with these
	ignored map[int]bool // copies that do not count
	opened  int          // the last opening, if no step came since, else -1
	attempt []int        // of a strict door
}

func newOracle(m *Matcher) *oracle {
	return &oracle{doors: m.index.Load().doors, ring: m.perRing, sources: make(map[netip.Addr]*oracleSource)}
}

// opening is a door and the packet that began its opening.
type opening struct {
	door  string
	start time.Time
}

func (o *oracle) add(p Packet) (opened []opening) {
	s := o.sources[p.Src]
	if s == nil {
		s = &oracleSource{}
		for range o.doors {
			s.doors = append(s.doors, oracleDoor{after: -1, gone: map[int]bool{}, ignored: map[int]bool{}, opened: -1})
		}
		o.sources[p.Src] = s
	}
	i := len(s.packets)
	s.packets = append(s.packets, p)
	like := s.like(i)
	visible, known, harm, forget := false, like != novel, false, false
	own := make([]bool, len(o.doors))
	for n, d := range o.doors {
		if !accepts(d, &p) {
			continue
		}
		visible, own[n] = true, true
		v, start := s.judge(n, d, i, like)
		switch v {
		case opens:
			opened = append(opened, opening{d.pub.Name, s.packets[start].Time})
			known = true
		case explained:
			known = true
		case wrong:
			harm, forget = true, true
		case restarted:
			known, forget = true, true
		}
	}
	if like == novel {
		for n, d := range o.doors {
			if own[n] || !d.sees(&p) || !s.running(n, d, i) {
				continue
			}
			if d.strict {
				s.doors[n].attempt = nil
			} else if visible && !known {
				s.doors[n].after = i
				harm, forget = true, true
			}
		}
	}
	if forget {
		s.recent = nil
	}
	if like == novel && known && !harm {
		s.recent = append(s.recent, i)
		s.recent = s.recent[max(0, len(s.recent)-o.ring):]
	}
	return opened
}

func accepts(d *door, p *Packet) bool {
	for k := range d.steps {
		if d.fits(k, p) {
			return true
		}
	}
	return false
}

func (d *door) fits(k int, p *Packet) bool {
	s := d.steps[k]
	return s.Protocol == p.Protocol && s.Port == p.DstPort &&
		(s.Protocol == knockcore.UDP || s.Flags.Match(p.TCPFlags)) &&
		(len(d.targets) == 0 || slices.Contains(d.targets, p.Dst))
}

func (s *oracleSource) like(i int) likeness {
	p := s.packets[i]
	for _, j := range s.recent {
		q := s.packets[j]
		if q.Protocol == p.Protocol && q.DstPort == p.DstPort && q.SrcPort == p.SrcPort && q.Seq == p.Seq &&
			p.Time.Sub(q.Time) <= copyTime*time.Millisecond {
			if q.Seq != 0 {
				return exact
			}
			return alike
		}
	}
	return novel
}

func (s *oracleSource) alive(d *door, start, last, i int) bool {
	now := s.packets[i].Time
	return now.Sub(s.packets[start].Time) <= time.Duration(d.within)*time.Millisecond &&
		(d.idle == 0 || now.Sub(s.packets[last].Time) <= time.Duration(d.idle)*time.Millisecond)
}

// starts returns the first packets of all ways to do steps 0 to k, the last of
// them with packet i.
func (s *oracleSource) starts(n int, d *door, k, i int) (list []int) {
	od := &s.doors[n]
	if !d.fits(k, &s.packets[i]) || od.ignored[i] || i <= od.after {
		return nil
	}
	if k == 0 {
		if od.gone[i] {
			return nil
		}
		return []int{i}
	}
	for j := range i {
		for _, start := range s.starts(n, d, k-1, j) {
			if s.alive(d, start, j, i) && !slices.Contains(list, start) {
				list = append(list, start)
			}
		}
	}
	return list
}

// reached reports whether an attempt that could go on at packet i has done step
// k as its last.
func (s *oracleSource) reached(n int, d *door, k, i int) bool {
	for j := range i {
		for _, start := range s.starts(n, d, k, j) {
			if s.alive(d, start, j, i) {
				return true
			}
		}
	}
	return false
}

func (s *oracleSource) running(n int, d *door, i int) bool {
	if d.strict {
		a := s.doors[n].attempt
		return len(a) > 0 && s.alive(d, a[0], a[len(a)-1], i)
	}
	for k := range len(d.steps) - 1 {
		if s.reached(n, d, k, i) {
			return true
		}
	}
	return false
}

func (s *oracleSource) judge(n int, d *door, i int, like likeness) (verdict, int) {
	od, last := &s.doors[n], len(d.steps)-1
	if like == exact && d.sensitive() {
		od.ignored[i] = true
		return explained, 0
	}
	if od.opened >= 0 && !s.alive(&door{within: d.within}, od.opened, od.opened, i) {
		od.opened = -1
	}
	if d.strict {
		return s.judgeStrict(od, d, i, like)
	}
	if whole := s.starts(n, d, last, i); len(whole) > 0 {
		best := slices.Max(whole)
		od.opened = i
		if d.distinct {
			for j := range i + 1 {
				if !s.packets[j].Time.After(s.packets[best].Time) {
					od.gone[j] = true
				}
			}
		} else {
			od.after = i
		}
		return opens, best
	}
	reached := false
	for k := range last {
		if len(s.starts(n, d, k, i)) > 0 {
			od.opened = -1
			return explained, 0
		}
		reached = reached || d.fits(k, &s.packets[i]) && s.reached(n, d, k, i)
	}
	switch {
	case reached || like != novel || od.opened >= 0:
		return explained, 0
	case s.running(n, d, i):
		od.after = i
		return wrong, 0
	}
	return nothing, 0
}

func (s *oracleSource) judgeStrict(od *oracleDoor, d *door, i int, like likeness) (verdict, int) {
	p := &s.packets[i]
	if a := od.attempt; len(a) > 0 && !s.alive(d, a[0], a[len(a)-1], i) {
		od.attempt = nil
	}
	a := od.attempt
	if len(a) > 0 && d.fits(len(a), p) {
		od.attempt, od.opened = append(slices.Clone(a), i), -1
		if len(a)+1 == len(d.steps) {
			od.attempt, od.opened = nil, i
			return opens, a[0]
		}
		return explained, 0
	}
	switch {
	case len(a) > 0 && like != novel:
		return explained, 0
	case len(a) > 0 && d.fits(0, p):
		od.attempt, od.opened = []int{i}, -1
		return restarted, 0
	case len(a) > 0:
		od.attempt = nil
		return wrong, 0
	case d.fits(0, p) && len(d.steps) == 1:
		od.opened = i
		return opens, i
	case d.fits(0, p):
		od.attempt, od.opened = []int{i}, -1
		return explained, 0
	case like != novel || od.opened >= 0:
		return explained, 0
	}
	return nothing, 0
}
