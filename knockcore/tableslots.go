// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
)

// slots is an open-addressing hash table by address, at most three quarters full.
// A look-up costs one cache line as long as an address has one entry only.
// Readers take no lock; there is one writer at a time.
type slots struct {
	all  []slot
	used int // slots that have an address, also without an entry
}

// slot is what one address has: 64 bytes, a cache line. The address is written
// once, before version; what follows it changes under version, which is odd
// meanwhile: a reader that saw it odd or moved looks again.
type slot struct {
	version atomic.Uint64 // 0 means that the slot is free
	hi, lo  atomic.Uint64 // the address as IPv6
	refs    atomic.Uint64 // service and client of the only entry
	expires atomic.Int64  // its end; 0 if there is no entry
	more    atomic.Pointer[[]entry]
	id      GrantID // of the only entry; for the writer
	_       [8]byte
}

// entry is a grant as the table knows it.
type entry struct {
	id      GrantID
	service Ref
	client  Ref
	expires Tick
}

func (e *entry) allows(service, client Ref, now Tick) bool {
	return e.expires > now && (service == AnyRef || e.service == service) && (client == AnyRef || e.client == client)
}

func newSlots(size int) *slots { return &slots{all: make([]slot, size)} }

// addrKey is an address as two numbers.
type addrKey struct{ hi, lo uint64 }

func keyOf(addr netip.Addr) addrKey {
	b := addr.As16()
	return addrKey{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (k addrKey) hash(seed uint64) uint64 {
	hi, lo := bits.Mul64(k.hi^seed, k.lo^0x9e3779b97f4a7c15)
	hi, lo = bits.Mul64(hi^lo^seed, 0xd6e8feb86659fd93)
	return hi ^ lo
}

// find returns the slot of the address, or the free one where it would be.
func (t *slots) find(k addrKey, seed uint64) *slot {
	mask := uint64(len(t.all) - 1)
	for i := k.hash(seed) & mask; ; i = (i + 1) & mask {
		s := &t.all[i]
		if s.version.Load() == 0 || s.lo.Load() == k.lo && s.hi.Load() == k.hi {
			return s
		}
	}
}

// allows reports whether an entry of the slot fits.
func (s *slot) allows(service, client Ref, now Tick) bool {
	for {
		version := s.version.Load()
		refs, expires, more := s.refs.Load(), s.expires.Load(), s.more.Load()
		if version&1 != 0 || s.version.Load() != version {
			runtime.Gosched()
			continue
		}
		if more != nil {
			return slices.ContainsFunc(*more, func(e entry) bool { return e.allows(service, client, now) })
		}
		one := entry{service: Ref(refs >> 32), client: Ref(uint32(refs)), expires: Tick(expires)}
		return one.allows(service, client, now)
	}
}

// entries returns a copy of what the slot holds. For the writer.
func (s *slot) entries() []entry {
	if more := s.more.Load(); more != nil {
		return slices.Clone(*more)
	}
	if expires := s.expires.Load(); expires != 0 {
		refs := s.refs.Load()
		return []entry{{s.id, Ref(refs >> 32), Ref(uint32(refs)), Tick(expires)}}
	}
	return nil
}

// set replaces what the slot, found for the address, holds. There must be room.
func (t *slots) set(s *slot, k addrKey, entries []entry) {
	version := s.version.Load()
	if version == 0 {
		s.hi.Store(k.hi)
		s.lo.Store(k.lo)
		t.used++
	}
	s.version.Store(version + 1)
	var one entry
	s.more.Store(nil)
	switch len(entries) {
	case 0:
	case 1:
		one = entries[0]
	default:
		s.more.Store(&entries)
	}
	s.id = one.id
	s.refs.Store(uint64(one.service)<<32 | uint64(one.client))
	s.expires.Store(int64(one.expires))
	s.version.Store(version + 2)
}

// roomy returns the table itself if it has room for another address, otherwise a
// copy without those that hold nothing any more.
func (t *slots) roomy(seed uint64, now Tick) *slots {
	if (t.used+1)*4 < len(t.all)*3 {
		return t
	}
	live := 0
	for i := range t.all {
		if t.all[i].allows(AnyRef, AnyRef, now) {
			live++
		}
	}
	size := 16
	for size < (live+1)*2 {
		size *= 2
	}
	grown := newSlots(size)
	for i := range t.all {
		if s := &t.all[i]; s.allows(AnyRef, AnyRef, now) {
			k := addrKey{s.hi.Load(), s.lo.Load()}
			grown.set(grown.find(k, seed), k, s.entries())
		}
	}
	return grown
}

// change replaces the entries of an address by what f makes of them.
func (t *slots) change(addr netip.Addr, seed uint64, f func([]entry) []entry) {
	k := keyOf(addr)
	s := t.find(k, seed)
	t.set(s, k, f(s.entries()))
}
