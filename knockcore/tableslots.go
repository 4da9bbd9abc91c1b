// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"net/netip"
	"sync/atomic"
)

// slots is an open-addressing hash table of the grants of prefixes of one length,
// at most three quarters full. Every grant has a slot of its own, so that a look-up
// costs one access to memory as long as an address has one grant. Readers take no
// lock; there is one writer at a time.
type slots struct {
	all  []slot
	used int // slots that have an address, also without a grant
	live int // slots that have a grant
}

// slot is a grant: half a cache line. Its address never changes. While the grant
// changes into another one of the same address, until is 0.
type slot struct {
	hi, lo atomic.Uint64 // the address
	grant  atomic.Uint64 // holder<<32 | number; 0: the slot is free; number 0: it has no grant
	until  atomic.Int64  // the end of the grant, if it lets anybody in
}

func newSlots(size int) *slots {
	t := &slots{all: make([]slot, size)}
	wantHugePages(t.all)
	return t
}

// addrKey is an address as two numbers, an IPv4 address in its IPv6-mapped form.
type addrKey struct{ hi, lo uint64 }

func keyOf(addr netip.Addr) addrKey {
	b := addr.As16()
	return addrKey{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// addr is the address again.
func (k addrKey) addr(v4 bool) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], k.hi)
	binary.BigEndian.PutUint64(b[8:], k.lo)
	if v4 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

// masked is the key of the prefix with this many of 128 bits.
func (k addrKey) masked(length int) addrKey {
	if length <= 64 {
		return addrKey{k.hi &^ (1<<(64-length) - 1), 0}
	}
	return addrKey{k.hi, k.lo &^ (1<<(128-length) - 1)}
}

func (k addrKey) hash(seed uint64) uint64 {
	hi, lo := bits.Mul64(k.hi^seed, k.lo^0x9e3779b97f4a7c15)
	hi, lo = bits.Mul64(hi^lo^seed, 0xd6e8feb86659fd93)
	return hi ^ lo
}

// run returns the slots that may hold grants of the address, the last one being the
// first free slot.
func (t *slots) run(k addrKey, seed uint64) iter.Seq[*slot] {
	return func(yield func(*slot) bool) { t.walk(t.home(k, seed), yield) }
}

func (t *slots) walk(from int, yield func(*slot) bool) {
	for i := from; ; i = t.after(i) {
		if s := &t.all[i]; !yield(s) || s.grant.Load() == 0 {
			return
		}
	}
}

func (t *slots) home(k addrKey, seed uint64) int {
	i, _ := bits.Mul64(k.hash(seed), uint64(len(t.all)))
	return int(i)
}

func (t *slots) after(i int) int {
	if i++; i < len(t.all) {
		return i
	}
	return 0
}

// is reports whether the slot is one of the address.
func (s *slot) is(k addrKey) bool { return s.lo.Load() == k.lo && s.hi.Load() == k.hi }

// number is that of the slot's grant, 0 if it has none.
func (s *slot) number() uint32 { return uint32(s.grant.Load()) }

// add puts a grant in, for which there must be room.
func (t *slots) add(k addrKey, seed uint64, grant uint64, until Tick) {
	for s := range t.run(k, seed) {
		switch {
		case s.grant.Load() == 0:
			s.hi.Store(k.hi)
			s.lo.Store(k.lo)
			t.used++
		case s.number() != 0 || !s.is(k):
			continue
		}
		t.live++
		s.grant.Store(grant)
		s.until.Store(int64(until))
		return
	}
}

// remove takes a grant out.
func (t *slots) remove(s *slot) {
	s.until.Store(0)
	s.grant.Store(s.grant.Load() >> 32 << 32)
	t.live--
}

// find returns the slot of a grant, nil if it is not here.
func (t *slots) find(k addrKey, seed uint64, number uint32) *slot {
	for s := range t.run(k, seed) {
		if s.is(k) && s.number() == number {
			return s
		}
	}
	return nil
}

// roomy returns the table itself if it has room for another grant, otherwise a
// copy without the slots that have none any more.
func (t *slots) roomy(seed uint64) *slots {
	if (t.used+1)*4 <= len(t.all)*3 {
		return t
	}
	grown := newSlots(max(leastSlots, 2*(t.live+1)))
	for i := range t.all {
		if s := &t.all[i]; s.number() != 0 {
			grown.add(addrKey{s.hi.Load(), s.lo.Load()}, seed, s.grant.Load(), Tick(s.until.Load()))
		}
	}
	return grown
}

const leastSlots = 16
