// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"fmt"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Config is what a Matcher can be told beside its doors. The zero value will do.
type Config struct {
	Limits
	// Observe is told of every event, at once and with a lock held: it must be
	// quick and must not call the Matcher. nil means nobody wants to know.
	Observe func(Event)
}

// Matcher watches packets and finds the sources that knock as a door asks. It is
// safe for concurrent use, starts no goroutine and has no clock: time is the
// packets'.
type Matcher struct {
	*table
	config Config
	index  atomic.Pointer[index]
	settle sync.Mutex // held while a one-time door moves on
}

// NewMatcher makes a Matcher for doors, in the order in which they are to fire.
func NewMatcher(doors []*Door, config Config) (*Matcher, error) {
	if len(doors) > math.MaxUint16-1 {
		return nil, fmt.Errorf("%d doors are too many; the most is %d", len(doors), math.MaxUint16-1)
	}
	files := make(map[string]string)
	compiled := make([]*door, len(doors))
	for i, pub := range doors {
		if err := pub.Validate(); err != nil {
			return nil, err
		}
		if f := pub.OneTime; f != nil {
			if other, taken := files[f.path]; taken {
				return nil, fmt.Errorf("doors %s and %s share the file %s; give each its own, or make them one door", other, pub.Name, f.path)
			}
			files[f.path] = pub.Name
		}
		compiled[i] = compile(pub, uint16(i+1), 1)
	}
	t, err := newTable(compiled, config.Limits)
	if err != nil {
		return nil, err
	}
	m := &Matcher{table: t, config: config}
	m.index.Store(newIndex(compiled))
	return m, nil
}

// Add puts a packet through the doors and appends the doors that it opens, in
// their order. A packet that concerns no door costs no lock and no memory.
//
// The last packet of a one-time sequence makes Add write to the file and wait
// for the disk; nobody can make that happen who does not know the sequence.
func (m *Matcher) Add(p *Packet, dst []Match) []Match {
	if p.Protocol != knockcore.TCP && p.Protocol != knockcore.UDP || !p.Src.IsValid() {
		return dst
	}
	if !m.index.Load().concerns(p) {
		return dst
	}
	before := len(dst)
	key := keyOf(p.Src)
	set := m.setOf(&key)
	mu := m.lock(set)
	mu.Lock()
	dst = m.add(m.index.Load(), set, &key, p, dst)
	mu.Unlock()
	for i := before; i < len(dst); i++ {
		if dst[i].door.pub.OneTime != nil {
			return m.settleOneTime(dst, before)
		}
	}
	return dst
}

func (m *Matcher) add(ix *index, set int, key *[16]byte, p *Packet, dst []Match) []Match {
	hits, now := ix.lookup(p), p.Time.UnixMilli()
	r := m.find(set, key)
	if r < 0 {
		if !begins(hits, p) {
			return dst
		}
		r = m.take(set, key, now)
	} else {
		now = m.wake(ix, r, now, p.Time)
	}
	rec, now32 := &m.records[r], uint32(now)
	like := m.likeness(r, p, now32)
	visible, known, harm := false, like != novel, false
	for _, h := range hits {
		mask := h.door.accept(p, h.mask)
		if mask == 0 {
			continue
		}
		visible = true
		s := m.stateFor(h.door, r, mask&1 != 0)
		if s < 0 {
			continue
		}
		st := &m.statesOf(r)[s]
		st.own = true
		before := st.live
		v, start := m.advance(h.door, r, s, mask, like, now32)
		if v == wrong || v == restarted {
			m.observe(EventSpoiled, h.door, r, rank(before), p.Time)
			clear(m.ringOf(r))
			harm = harm || v == wrong
		}
		if v == wrong {
			continue
		}
		known = true
		rec.until = max(rec.until, now+int64(h.door.within))
		if fresh := st.live &^ before; fresh != 0 || v == restarted {
			m.observe(EventStage, h.door, r, rank(st.live), p.Time)
		}
		if v == opens {
			dst = append(dst, Match{
				Door: h.door.pub, Source: plain(p.Src), Time: p.Time, door: h.door,
				Started: time.UnixMilli(now - int64(now32-start)),
			})
		}
	}
	if like == novel {
		harm = m.disturb(ix, r, p, visible && !known) || harm
		if known && !harm {
			m.remember(r, p, now32)
		}
	}
	rec.last, rec.top = now, 0
	for i := range m.statesOf(r) {
		rec.top = max(rec.top, uint8(rank(m.statesOf(r)[i].live)))
	}
	return dst
}

// begins reports whether a packet is the first step of some door.
func begins(hits []hit, p *Packet) bool {
	for _, h := range hits {
		if h.door.accept(p, h.mask)&1 != 0 {
			return true
		}
	}
	return false
}

// wake brings a record to the present: what has run out goes. It returns the
// time to go on with, which never runs backwards for one source.
func (m *Matcher) wake(ix *index, r int, now int64, at time.Time) int64 {
	rec := &m.records[r]
	if rec.last > now {
		if rec.last > now+clockSkew {
			m.reset(r)
			rec.until, rec.last = now, now
			return now
		}
		now = rec.last
	}
	for s := range m.statesOf(r) {
		st := &m.statesOf(r)[s]
		if st.own = false; st.door == 0 {
			continue
		}
		d := ix.doors[st.door-1]
		if d.version != st.version {
			*st = state{}
		} else if stage := m.expire(d, r, s, uint32(now)); stage > 0 {
			m.observe(EventTimeout, d, r, stage, at)
		}
	}
	return now
}

// disturb spoils the attempts at doors that do not have the packet's port: all
// of them if nobody expected the packet, the strict ones in any case.
func (m *Matcher) disturb(ix *index, r int, p *Packet, stray bool) bool {
	harm := false
	for s := range m.statesOf(r) {
		st := &m.statesOf(r)[s]
		if st.door == 0 || st.own || st.live == 0 {
			continue
		}
		d := ix.doors[st.door-1]
		if (stray || d.strict) && d.sees(p) {
			m.observe(EventSpoiled, d, r, rank(st.live), p.Time)
			st.live = 0
			harm = harm || !d.strict
		}
	}
	if harm {
		clear(m.ringOf(r))
	}
	return harm
}

// Sweep ends what has run out by now, and returns the number of sources that
// are still remembered. Nothing depends on it but the events of attempts that
// nobody goes on with, and Len; once a second is plenty.
func (m *Matcher) Sweep(now time.Time) int {
	for set := range m.sets {
		mu := m.lock(set)
		mu.Lock()
		ix := m.index.Load()
		for r := set * ways; r < (set+1)*ways; r++ {
			rec := &m.records[r]
			if !rec.used {
				continue
			}
			ms := m.wake(ix, r, now.UnixMilli(), now)
			if rec.finished(ms) {
				m.free(r)
			}
		}
		mu.Unlock()
	}
	return m.Len()
}

// Len is the number of sources in the table; those that ran out count until
// their place is needed or Sweep comes.
func (m *Matcher) Len() int { return int(m.used.Load()) }

// Capacity is the greatest number of sources in the table.
func (m *Matcher) Capacity() int { return len(m.records) }

// MemoryBytes is what the tables take when they are full.
func (m *Matcher) MemoryBytes() int64 { return int64(m.Capacity()) * m.recordBytes() }

// Evicted counts the sources with a running attempt that had to make room.
func (m *Matcher) Evicted() uint64 { return m.lost.Load() }

func (m *Matcher) observe(kind EventKind, d *door, r, stage int, at time.Time) {
	if m.config.Observe != nil {
		m.config.Observe(Event{
			Kind: kind, Door: d.pub, Source: netip.AddrFrom16(m.records[r].addr).Unmap(), Stage: stage, Time: at,
		})
	}
}
