// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"math/bits"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// copyTime is how long a packet that was a step is known, so that copies of it
// are: longer than a TCP stack's first four retransmissions. ms.
const copyTime = 30_000

// likeness says whether a packet was seen before.
type likeness uint8

const (
	novel likeness = iota
	alike          // same ports; no TCP sequence number to be sure by
	exact          // same ports and sequence number: a copy
)

// likeness compares a packet with the recent steps of its source.
func (t *table) likeness(r int, p *Packet, now uint32) likeness {
	for i, ring := 0, t.ringOf(r); i < len(ring); i++ {
		s := &ring[i]
		if s.used && s.port == p.DstPort && s.sport == p.SrcPort && s.seq == seqOf(p) &&
			s.proto == uint8(p.Protocol) && now-s.at <= copyTime {
			if s.seq != 0 {
				return exact
			}
			return alike
		}
	}
	return novel
}

func (t *table) remember(r int, p *Packet, now uint32) {
	rec, ring := &t.records[r], t.ringOf(r)
	ring[rec.next] = seen{
		at: now, seq: seqOf(p), port: p.DstPort, sport: p.SrcPort, proto: uint8(p.Protocol), used: true,
	}
	rec.next = uint8((int(rec.next) + 1) % len(ring))
}

func seqOf(p *Packet) uint32 {
	if p.Protocol == knockcore.TCP {
		return p.Seq
	}
	return 0
}

// verdict is what a packet was to a door that has its port.
type verdict uint8

const (
	// explained: a step, the repeat of one, or a copy.
	explained verdict = iota
	// wrong: a port of the door out of order; the attempts are gone.
	wrong
	// restarted: a strict door's attempt is gone and a new one begun.
	restarted
	// opens: the last step.
	opens
)

// advance puts a packet through state s of record r, in which an attempt runs,
// or has just opened the door, or is to begin. mask has the steps that accept the
// packet.
func (t *table) advance(d *door, r, s int, mask uint32, like likeness, now uint32) (v verdict, start uint32) {
	if like == exact && d.sensitive() {
		return explained, 0
	}
	if d.strict {
		return t.advanceStrict(d, r, s, mask, like, now)
	}
	st, stages, n := &t.statesOf(r)[s], t.stagesOf(r, s), len(d.steps)
	next := mask & (st.live<<1 | 1)
	if next == 0 {
		if mask&st.live != 0 || like != novel || st.echo {
			return explained, 0
		}
		st.live = 0
		return wrong, 0
	}
	st.last, st.echo = now, false
	if next&(1<<(n-1)) != 0 {
		start = now
		if n > 1 {
			start = stages[n-2].start
		}
		t.open(d, st, stages, start, now)
		return opens, start
	}
	// From the highest, so that one packet is not two steps of one attempt.
	for next != 0 {
		k := bits.Len32(next) - 1
		next &^= 1 << k
		stages[k] = stage{start: now, last: now}
		if k > 0 {
			stages[k].start = stages[k-1].start
		}
		st.live |= 1 << k
	}
	return explained, 0
}

// open forgets what the opening used: all attempts that began with its first
// step or before. Those that began later are of other packets and go on, unless
// packets can be several steps, where that is not so.
func (t *table) open(d *door, st *state, stages []stage, start, now uint32) {
	if d.distinct {
		for live := st.live; live != 0; live &= live - 1 {
			k := bits.TrailingZeros32(live)
			if int32(stages[k].start-start) <= 0 {
				st.live &^= 1 << k
			}
		}
	} else {
		st.live = 0
	}
	st.opened, st.echo = now, true
}

// advanceStrict: one attempt, which only its next step leaves whole.
func (t *table) advanceStrict(d *door, r, s int, mask uint32, like likeness, now uint32) (v verdict, start uint32) {
	st, stages, n := &t.statesOf(r)[s], t.stagesOf(r, s), len(d.steps)
	if next := mask & (st.live << 1); next != 0 {
		k := bits.Len32(next) - 1
		start = stages[k-1].start
		st.last, st.live = now, 0
		if k == n-1 {
			st.opened, st.echo = now, true
			return opens, start
		}
		stages[k] = stage{start: start, last: now}
		st.live, st.echo = 1<<k, false
		return explained, 0
	}
	running := st.live != 0
	switch {
	case running && like != novel, !running && mask&1 == 0: // the door has just opened
		return explained, 0
	case mask&1 == 0:
		st.live = 0
		return wrong, 0
	}
	st.last, st.live, st.echo = now, 0, false
	switch {
	case n == 1:
		st.opened, st.echo = now, true
		return opens, now
	case running:
		v = restarted
	default:
		v = explained
	}
	stages[0], st.live = stage{start: now, last: now}, 1
	return v, 0
}

// expire drops the stages whose time has run out. It reports the greatest stage
// of an attempt that ended so, or 0.
func (t *table) expire(d *door, r, s int, now uint32) int {
	st, stages := &t.statesOf(r)[s], t.stagesOf(r, s)
	top := rank(st.live)
	for live := st.live; live != 0; live &= live - 1 {
		k := bits.TrailingZeros32(live)
		if now-stages[k].start > d.within || d.idle > 0 && now-stages[k].last > d.idle {
			st.live &^= 1 << k
		}
	}
	if st.echo && now-st.opened > d.within {
		st.echo = false
	}
	if st.live == 0 && !st.echo {
		st.door = 0
	}
	if st.live == 0 {
		return top
	}
	return 0
}

// stateFor returns the state of a source at a door, a free one, or that which
// matters least: -1 if the door has none and none is to be made.
func (t *table) stateFor(d *door, r int, create bool) int {
	states := t.statesOf(r)
	free, least := -1, 0
	for i := range states {
		switch st := &states[i]; {
		case st.door == d.id:
			return i
		case st.door == 0:
			free = i
		case rank(st.live) < rank(states[least].live),
			rank(st.live) == rank(states[least].live) && int32(st.last-states[least].last) < 0:
			least = i
		}
	}
	switch {
	case !create:
		return -1
	case free < 0:
		free = least
	}
	states[free] = state{door: d.id, version: d.version}
	return free
}

// rank is the greatest stage among live ones.
func rank(live uint32) int { return bits.Len32(live) }
