// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync"
)

// bucketWays is how many buckets could be the one of a given key.
const bucketWays = 8

// bucketTable is a hash table of fixed size: a key belongs to one set, and a set
// has a few places. Where a key lands depends on a random seed, so nobody can
// aim at a victim's set.
type bucketTable struct {
	seed uint64
	sets func() []bucketSet // a power of two, made when they are needed first
}

type bucketSet struct {
	mu   sync.Mutex
	ways [bucketWays]bucket
}

// bucket holds 32 bytes. What at and count mean is the limiter's business.
type bucket struct {
	key    bucketKey
	at     int64
	count  uint32
	method Method
	used   bool
}

// bucketKey is a masked address. IPv4 stands in its mapped form, which no masked
// IPv6 address has, because those are unmapped before.
type bucketKey struct{ hi, lo uint64 }

// makeBucketKey masks the address; zones do not matter, and IPv4-mapped
// addresses are IPv4. The zero Addr makes a key too.
func makeBucketKey(addr netip.Addr, bits4, bits6 int) bucketKey {
	addr = addr.Unmap()
	b := addr.As16()
	k := bucketKey{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
	length := bits6
	if addr.Is4() {
		length = 96 + bits4
	}
	if length < 64 {
		k.hi &= ^uint64(0) << (64 - length)
		k.lo = 0
	} else {
		k.lo &= ^uint64(0) << (128 - length) // a shift by 64 leaves nothing
	}
	return k
}

func newBucketTable(capacity int) *bucketTable {
	sets := 1
	for sets*bucketWays < capacity {
		sets *= 2
	}
	return &bucketTable{seed: rand.Uint64(), sets: sync.OnceValue(func() []bucketSet { return make([]bucketSet, sets) })}
}

// lock returns the key's set, locked.
func (t *bucketTable) lock(key bucketKey, m Method) *bucketSet {
	hi, lo := bits.Mul64(key.hi^t.seed, (key.lo+uint64(m)<<56)^0x9e3779b97f4a7c15)
	hi, lo = bits.Mul64(hi^lo^t.seed, 0xd6e8feb86659fd93)
	sets := t.sets()
	set := &sets[(hi^lo)&uint64(len(sets)-1)]
	set.mu.Lock()
	return set
}

func (s *bucketSet) unlock() { s.mu.Unlock() }

// find returns the key's bucket, nil if there is none.
func (s *bucketSet) find(key bucketKey, m Method) *bucket {
	for i := range s.ways {
		if b := &s.ways[i]; b.used && b.key == key && b.method == m {
			return b
		}
	}
	return nil
}

// room returns the bucket that gives way: an unused one, else the one with the
// least charge, else the oldest.
func (s *bucketSet) room(charge func(*bucket) int64) *bucket {
	victim, least := &s.ways[0], int64(0)
	for i := range s.ways {
		b := &s.ways[i]
		if !b.used {
			return b
		}
		if c := charge(b); i == 0 || c < least || c == least && b.at < victim.at {
			victim, least = b, c
		}
	}
	return victim
}

func (t *bucketTable) len() int {
	n, sets := 0, t.sets()
	for i := range sets {
		set := &sets[i]
		set.mu.Lock()
		for j := range set.ways {
			if set.ways[j].used {
				n++
			}
		}
		set.mu.Unlock()
	}
	return n
}
