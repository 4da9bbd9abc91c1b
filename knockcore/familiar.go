// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"iter"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
)

// Familiar remembers which keys, by their numbers, were good for an admission from
// which address, so that these can be tried before all others. Its size is fixed,
// and only admissions write to it: a stranger costs one look. What it says is a
// guess, which has to be verified as if it were any other key, so it need not be
// exact, and whoever is faster with a guess learns only that he was here before.
// IPv6 addresses are remembered by their /64. It is safe for concurrent use.
type Familiar struct {
	seed uint64
	sets []familiarSet
}

// familiarSet holds what is known of the addresses of one hash, the newest first:
// the upper half of the hash, and the number of the key, plus one.
type familiarSet [familiarWays]atomic.Uint64

const (
	familiarWays = 4
	familiarMost = 1 << 14 // sets, half a megabyte
)

// NewFamiliar makes one that has room for two addresses for each of so many keys. A
// single key needs none.
func NewFamiliar(keys int) *Familiar {
	f := &Familiar{seed: rand.Uint64()}
	if keys > 1 {
		f.sets = make([]familiarSet, min(max(keys/(familiarWays/2), 16), familiarMost))
	}
	return f
}

// knowsNobody reports whether there is nothing to know of the address.
func (f *Familiar) knowsNobody(addr netip.Addr) bool {
	return f == nil || len(f.sets) == 0 || !addr.IsValid()
}

// set finds the set of an address and the upper half of its hash.
func (f *Familiar) set(addr netip.Addr) (*familiarSet, uint64) {
	key := keyOf(addr)
	if addr.Is6() && !addr.Is4In6() {
		key = key.masked(64)
	}
	hash := key.hash(f.seed)
	return &f.sets[uint32(hash)%uint32(len(f.sets))], hash >> 32 << 32
}

// Guesses returns the numbers of the keys to try first, few at most.
func (f *Familiar) Guesses(addr netip.Addr) iter.Seq[int] {
	return func(yield func(int) bool) {
		if f.knowsNobody(addr) {
			return
		}
		set, hash := f.set(addr)
		for i := range set {
			if known := set[i].Load(); known != 0 && known>>32<<32 == hash && !yield(int(uint32(known))-1) {
				return
			}
		}
	}
}

// Remember notes an admission from the address with a key.
func (f *Familiar) Remember(addr netip.Addr, key int) {
	for known := range f.Guesses(addr) {
		if known == key {
			return
		}
	}
	if f.knowsNobody(addr) {
		return
	}
	set, hash := f.set(addr)
	for i := familiarWays - 1; i > 0; i-- {
		set[i].Store(set[i-1].Load())
	}
	set[0].Store(hash | uint64(uint32(key)+1))
}

// Familiar appends to dst what Candidates would find, if that is a credential that
// was good for an admission from the address lately. Otherwise it appends nothing,
// which says nothing about the others.
func (k *Keyring) Familiar(source netip.Addr, s *MACScratch, msg, hint []byte, dst []*Credential) []*Credential {
	if k.familiar.knowsNobody(source) {
		return dst
	}
	for i := range k.familiar.Guesses(source) {
		if c := &k.Credentials()[i]; c.MAC.begins(s, msg, hint) {
			return append(dst, c)
		}
	}
	return dst
}

// Remember notes that a frame of this credential of the keyring was admitted from
// the address. Credentials that share a secret are not remembered: which of them a
// hint fits is not for the address to say.
func (k *Keyring) Remember(source netip.Addr, cred *Credential) {
	if cred.place >= len(k.creds) || cred != &k.creds[cred.place] {
		return
	}
	k.findTwins.Do(func() {
		creds := k.Credentials()
		first, scratch := make(map[[32]byte]int, len(creds)), NewMACScratch()
		k.twins = make([]bool, len(creds))
		for i := range creds {
			sum := *creds[i].MAC.Sum(scratch, nil)
			if other, ok := first[sum]; ok {
				k.twins[i], k.twins[other] = true, true
			} else {
				first[sum] = i
			}
		}
	})
	if !k.twins[cred.place] {
		k.familiar.Remember(source, cred.place)
	}
}
