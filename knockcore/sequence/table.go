// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
)

const (
	ways    = 16 // records in a set
	window  = 16 // sets that one prefix can use: 256 records, a whole /24
	stripes = 64 // locks

	recentLeast   = 4 // packets to know copies of; more if a door depends on it
	recentOneTime = 16
	recentMost    = 64
)

// table holds the records of sources in memory that is allocated once and has
// no pointers. It is organised like a processor's cache: a source has its place
// in one set, and only there is looked for it and room made for it. So the work
// for a packet does not depend on how full the table is.
type table struct {
	seed     maphash.Seed
	sets     int // a power of two
	perRec   int // states of a record
	perState int // stages of a state
	perRing  int // recent packets of a record

	records []record
	states  []state
	stages  []stage
	recent  []seen

	locks [stripes]stripe
	used  atomic.Int64
	lost  atomic.Uint64 // records with a running attempt that had to make room
}

type stripe struct {
	sync.Mutex
	_ [56]byte // a cache line for each
}

// record is a source.
type record struct {
	addr  [16]byte
	last  int64 // ms since 1970: the newest packet
	until int64 // ms since 1970: no attempt runs afterwards
	top   uint8 // the greatest stage of its states
	next  uint8 // where the ring of recent packets goes on
	used  bool
}

// state is what one source has at one door.
type state struct {
	version uint32
	live    uint32 // bit k-1: stage k is reached
	last    uint32 // ms: the last packet that was a step
	opened  uint32 // ms: the last opening, if echo
	door    uint16 // 0: free
	echo    bool   // opened, and no step since
	own     bool   // the packet at hand has one of the door's ports
}

// stage is the best way to have reached a stage: the one that began last.
type stage struct {
	start, last uint32 // ms; they wrap, but nothing lives that long
}

// seen is a packet that was a step, to know copies of it.
type seen struct {
	at          uint32 // ms
	seq         uint32
	port, sport uint16
	proto       uint8
	used        bool
}

// keyOf is how a source is kept.
func keyOf(src netip.Addr) [16]byte { return src.As16() }

// setOf returns the set that a source belongs to. The sources of one /24 or /64
// share a window of 16 sets.
func (t *table) setOf(key *[16]byte) int {
	var prefix uint64
	var offset int
	if is4(key) {
		prefix = maphash.Bytes(t.seed, key[:15])
		offset = int(key[15])
	} else {
		prefix = maphash.Bytes(t.seed, key[:8])
		offset = int(maphash.Bytes(t.seed, key[:]) % window)
	}
	return (int(prefix&0xffffffff) + offset%window) & (t.sets - 1)
}

// is4 reports whether a key is an IPv4 address, written ::ffff:a.b.c.d.
func is4(key *[16]byte) bool {
	return [12]byte(key[:12]) == [12]byte{10: 0xff, 11: 0xff}
}

func (t *table) lock(set int) *stripe { return &t.locks[set%stripes] }

// find returns the record of a source in its set, or -1.
func (t *table) find(set int, key *[16]byte) int {
	recs := t.records[set*ways : set*ways+ways]
	for i := range recs {
		if recs[i].used && recs[i].addr == *key {
			return set*ways + i
		}
	}
	return -1
}

// take makes a record for a source that has none. If the set is full and no
// record of it has run out, the most numerous stage loses the one that was quiet
// longest; of equal stages the lower. So a flood at one stage evicts itself.
func (t *table) take(set int, key *[16]byte, now int64) int {
	recs := t.records[set*ways : set*ways+ways]
	var count [MaxSteps]uint8
	for i := range recs {
		switch r := &recs[i]; {
		case !r.used:
			return t.begin(set*ways+i, key, now)
		case r.dead(now):
			r.top = 0
		}
		count[recs[i].top]++
	}
	class := 0 // stage 0: without a running attempt, so nothing is lost
	if count[0] == 0 {
		for k := range count {
			if count[k] > count[class] {
				class = k
			}
		}
		t.lost.Add(1)
	}
	best := -1
	for i := range recs {
		if int(recs[i].top) == class && (best < 0 || recs[i].last < recs[best].last) {
			best = i
		}
	}
	return t.begin(set*ways+best, key, now)
}

func (t *table) begin(r int, key *[16]byte, now int64) int {
	if !t.records[r].used {
		t.used.Add(1)
	}
	t.reset(r)
	t.records[r] = record{addr: *key, last: now, until: now, used: true}
	return r
}

// free gives a record back.
func (t *table) free(r int) {
	if t.records[r].used {
		t.used.Add(-1)
	}
	t.reset(r)
	t.records[r] = record{}
}

// reset forgets all that a record has.
func (t *table) reset(r int) {
	t.records[r].top = 0
	clear(t.statesOf(r))
	clear(t.ringOf(r))
}

func (t *table) statesOf(r int) []state { return t.states[r*t.perRec : (r+1)*t.perRec] }

func (t *table) ringOf(r int) []seen { return t.recent[r*t.perRing : (r+1)*t.perRing] }

// stagesOf returns the stages of state s of record r, by stage number less 1.
func (t *table) stagesOf(r, s int) []stage {
	i := (r*t.perRec + s) * t.perState
	return t.stages[i : i+t.perState]
}

// finished reports whether not even a copy can come any more.
func (r *record) finished(now int64) bool { return now > r.until+copyTime || r.last > now+clockSkew }

// clockSkew is how far packets may come out of order, in ms. A greater step back
// means that the clock was set, and what was remembered is not to be used.
const clockSkew = 1000

func (r *record) dead(now int64) bool { return now > r.until || r.last > now+clockSkew }
