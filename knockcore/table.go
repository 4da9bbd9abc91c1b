// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Table is the index of live grants by address. A Query asks it whether an address
// is in, without a lock and without allocating.
//
// There is one flat hash table for each prefix length in use. A writer replaces it
// when it gets full.
type Table struct {
	base    time.Time // what Tick counts from
	seed    uint64
	holders *holders
	lengths atomic.Pointer[[]prefixLength] // the first is that of single addresses
}

// Tick is a point of the monotonic clock: nanoseconds since the table was made.
type Tick int64

// prefixLength is the grants of all prefixes of one length, in bits of an IPv6
// address: those of IPv4 have 96 more.
type prefixLength struct {
	bits  int
	slots *slots
}

const (
	addrBits = 128
	v4Bits   = 96
)

// NewTable makes an empty table.
func NewTable() *Table {
	t := &Table{base: time.Now(), seed: rand.Uint64(), holders: newHolders()}
	t.lengths.Store(&[]prefixLength{{addrBits, newSlots(leastSlots)}})
	return t
}

// Now is the present point of the monotonic clock.
func (t *Table) Now() Tick { return Tick(time.Since(t.base)) }

// tick converts a time, by its monotonic reading if it has one.
func (t *Table) tick(at time.Time) Tick { return Tick(at.Sub(t.base)) }

// allows reports whether the address holds a grant that fits the query.
func (t *Table) allows(addr netip.Addr, q *Query) bool {
	if !addr.IsValid() {
		return false
	}
	k, v4 := keyOf(addr), addr.Is4() || addr.Is4In6()
	for _, l := range *t.lengths.Load() {
		if v4 && l.bits < v4Bits {
			continue // ::/64 is no prefix of IPv4 addresses
		}
		if t.allowsPrefix(l.slots, k.masked(l.bits), q) {
			return true
		}
	}
	return false
}

func (t *Table) allowsPrefix(in *slots, k addrKey, q *Query) bool {
	for i := in.home(k, t.seed); ; i = in.after(i) {
		s := &in.all[i]
		if s.grant.Load() == 0 {
			return false
		}
		if !s.is(k) {
			continue
		}
		for until := s.until.Load(); until > 0; {
			fits := q.fits(t.holders.of(uint32(s.grant.Load() >> 32)))
			again := s.until.Load()
			if fits && again == until && Tick(until) > t.Now() {
				return true
			}
			if again == until {
				break
			}
			until = again // it was changed meanwhile
		}
	}
}

// on returns the numbers of the grants whose prefixes cover the address, those of
// session scope and those that are over included.
func (t *Table) on(addr netip.Addr) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for _, l := range *t.lengths.Load() {
			if addr.Is4() && l.bits < v4Bits {
				continue
			}
			if !t.each(l, keyOf(addr).masked(l.bits), yield) {
				return
			}
		}
	}
}

// of returns the numbers of the grants of exactly this prefix.
func (t *Table) of(p netip.Prefix) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		if l, at := t.length(p); at >= 0 {
			t.each(l, keyOf(p.Addr()), yield)
		}
	}
}

// each yields the numbers of the grants of a prefix, until it is told to stop.
func (t *Table) each(l prefixLength, k addrKey, yield func(uint32) bool) bool {
	for s := range l.slots.run(k, t.seed) {
		if n := s.number(); n != 0 && s.is(k) && !yield(n) {
			return false
		}
	}
	return true
}

// length finds the prefixes of the same length; without slots, and at -1, if there
// are none.
func (t *Table) length(p netip.Prefix) (l prefixLength, at int) {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += v4Bits
	}
	all := *t.lengths.Load()
	if at = slices.IndexFunc(all, func(l prefixLength) bool { return l.bits == bits }); at < 0 {
		return prefixLength{bits: bits}, at
	}
	return all[at], at
}

// add enters a grant. until is its end, or 0 if it does not let the address in.
func (t *Table) add(p netip.Prefix, holder, number uint32, until Tick) {
	l, at := t.length(p)
	roomy := l
	if at < 0 {
		roomy.slots = newSlots(leastSlots)
	} else {
		roomy.slots = l.slots.roomy(t.seed)
	}
	roomy.slots.add(keyOf(p.Addr()), t.seed, uint64(holder)<<32|uint64(number), until)
	if roomy == l {
		return
	}
	all := slices.Clone(*t.lengths.Load())
	if at < 0 {
		all = append(all, roomy)
	} else {
		all[at] = roomy
	}
	t.lengths.Store(&all)
}

// renew changes the end of a grant.
func (t *Table) renew(p netip.Prefix, number uint32, until Tick) {
	l, _ := t.length(p)
	l.slots.find(keyOf(p.Addr()), t.seed, number).until.Store(int64(until))
}

// remove takes a grant out.
func (t *Table) remove(p netip.Prefix, number uint32) {
	l, at := t.length(p)
	l.slots.remove(l.slots.find(keyOf(p.Addr()), t.seed, number))
	if l.slots.live == 0 && l.bits != addrBits {
		all := slices.Delete(slices.Clone(*t.lengths.Load()), at, at+1)
		t.lengths.Store(&all)
	}
}

func plain(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if addr.Zone() != "" {
		addr = addr.WithZone("")
	}
	return addr
}
