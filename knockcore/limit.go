// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"net/netip"
	"time"
)

// LimitConfig is what a Limiter limits by; the zero value is a usable default.
type LimitConfig struct {
	// Uses is how many uses a prefix has per Every, and how many it may make at
	// once. Default: 10.
	Uses int
	// Every is the time in which Uses come back. Default: 1s.
	Every time.Duration
	// Fixed gives the uses back all at once, Every after the first of them was
	// made, as libknock's limiter does; otherwise they come back evenly, one per
	// Every/Uses.
	Fixed bool
	// Bits4 and Bits6 are the lengths of the prefixes that share a bucket.
	// Defaults: 32 and 64.
	Bits4, Bits6 int
	// Capacity is for how many prefixes and methods together a bucket is kept,
	// rounded up to a power of two. Default: 65536, which takes about 3 MB.
	Capacity int
	// GoodFor is how long an address counts as good after Good. Default: 10m.
	GoodFor time.Duration
}

// DefaultLimitCapacity is how many buckets a Limiter keeps by default.
const DefaultLimitCapacity = 1 << 16

// Limiter counts uses per prefix and method. It is bounded, takes no memory
// while in use, and is safe for concurrent use.
//
// # Sources that can be spoofed
//
// Anybody can send datagrams and SYNs in the name of a victim. A limit in front
// of such a source would be a weapon against the victim. Therefore the caller
//
//   - charges an address only after a keyed check failed (Charge), never for a
//     frame that turned out valid;
//   - asks (Allow) only under load, that is when its queue is over half full, and
//     never instead of looking at the frame when there is time for it;
//   - reports each valid frame (Good). Allow is true for good addresses
//     whatever was charged to them, and a caller with two queues serves them first.
//
// So a flood of junk in the name of an address that knocked lately changes
// nothing for it, and in the name of another one it costs that address its
// place only while the server is overloaded.
//
// # Sources that can't
//
// For HTTP and TCP, Take does both at once: it makes a use, or reports that there
// is none left.
//
// # Full tables
//
// A bucket that is full again is the same as none, so it gives way first. If all
// of the few buckets that could give way are in use, the one with the least
// charged to it does, the oldest of several: its prefix gets its uses back early.
// A full table thus forgives too much; it never refuses anybody. Good addresses
// have a table of their own, into which only valid frames get, so junk can't
// push them out.
//
// # libknock's limiter
//
// libknock.md section 14 is LimitConfig{Uses: Limit, Every: Every, Fixed: true,
// Bits6: 128} and Take, with the difference that a full table does not refuse
// new keys (W20). Its guard is Bans.Banned, then Take, and Bans.Ban with the
// fixed BanTTL when Take is false.
type Limiter struct {
	cfg     LimitConfig
	base    time.Time
	spacing int64 // ns between two uses, if not Fixed
	buckets *bucketTable
	good    *bucketTable
}

// NewLimiter makes a limiter. Values that are not positive mean the default,
// prefix lengths that don't exist mean whole addresses.
func NewLimiter(cfg LimitConfig) *Limiter {
	setDefault(&cfg.Uses, 10)
	setDefault(&cfg.Every, time.Second)
	setDefault(&cfg.Bits4, 32)
	setDefault(&cfg.Bits6, 64)
	setDefault(&cfg.Capacity, DefaultLimitCapacity)
	setDefault(&cfg.GoodFor, 10*time.Minute)
	cfg.Bits4, cfg.Bits6 = min(cfg.Bits4, 32), min(cfg.Bits6, 128)
	return &Limiter{
		cfg:     cfg,
		base:    time.Now(),
		spacing: max(1, int64(cfg.Every)/int64(cfg.Uses)),
		buckets: newBucketTable(cfg.Capacity),
		good:    newBucketTable(min(cfg.Capacity, DefaultLimitCapacity)),
	}
}

func setDefault[T int | time.Duration](v *T, value T) {
	if *v <= 0 {
		*v = value
	}
}

// Allow reports whether the address has a use left, or is good. It changes
// nothing.
func (l *Limiter) Allow(addr netip.Addr, m Method, now time.Time) bool {
	at := l.at(now)
	if l.isGood(addr, at) {
		return true
	}
	key := l.key(addr)
	set := l.buckets.lock(key, m)
	defer set.unlock()
	b := set.find(key, m)
	return b == nil || l.left(b, at)
}

// Charge makes a use, also if there is none left.
func (l *Limiter) Charge(addr netip.Addr, m Method, now time.Time) {
	l.use(addr, m, l.at(now))
}

// Take makes a use and reports whether there was one left. It does not ask
// whether the address is good.
func (l *Limiter) Take(addr netip.Addr, m Method, now time.Time) bool {
	return l.use(addr, m, l.at(now))
}

// Refund gives back a use that Take made, because nothing came of it.
func (l *Limiter) Refund(addr netip.Addr, m Method, now time.Time) {
	at := l.at(now)
	key := l.key(addr)
	set := l.buckets.lock(key, m)
	defer set.unlock()
	switch b := set.find(key, m); {
	case b == nil:
	case !l.cfg.Fixed:
		b.at = at + max(0, l.charged(b, at)-l.spacing)
	case b.count > 0:
		b.count--
	}
}

// Good reports that a valid frame came from the address: from now on and for
// GoodFor it is good.
func (l *Limiter) Good(addr netip.Addr, now time.Time) {
	at := l.at(now)
	key := l.key(addr)
	set := l.good.lock(key, MethodNone)
	defer set.unlock()
	b := set.find(key, MethodNone)
	if b == nil {
		b = set.room(func(b *bucket) int64 { return b.at + int64(l.cfg.GoodFor) - at })
		*b = bucket{key: key, used: true}
	}
	b.at = at
}

// IsGood reports whether a valid frame came from the address lately.
func (l *Limiter) IsGood(addr netip.Addr, now time.Time) bool { return l.isGood(addr, l.at(now)) }

func (l *Limiter) isGood(addr netip.Addr, at int64) bool {
	key := l.key(addr)
	set := l.good.lock(key, MethodNone)
	defer set.unlock()
	b := set.find(key, MethodNone)
	return b != nil && at-b.at < int64(l.cfg.GoodFor) && b.at-at < int64(l.cfg.GoodFor)
}

// Len is for how many prefixes and methods there is a bucket, full ones included.
func (l *Limiter) Len() int { return l.buckets.len() }

// at is a time as buckets keep it, by its monotonic reading if it has one.
func (l *Limiter) at(now time.Time) int64 { return int64(now.Sub(l.base)) }

func (l *Limiter) key(addr netip.Addr) bucketKey {
	return makeBucketKey(addr, l.cfg.Bits4, l.cfg.Bits6)
}

// A bucket of a Fixed limiter holds the beginning of its time and the uses made
// in it; otherwise at is when it will be full (the theoretical arrival time of
// GCRA), so that at-now says how much is charged.

// left reports whether a bucket has a use left.
func (l *Limiter) left(b *bucket, at int64) bool {
	if l.cfg.Fixed {
		return int(b.count) < l.cfg.Uses || !l.running(b, at)
	}
	return l.charged(b, at)+l.spacing <= int64(l.cfg.Every)
}

// running reports whether the time of a fixed bucket is not over. A beginning
// in the future means that the clock was set back.
func (l *Limiter) running(b *bucket, at int64) bool {
	return at >= b.at && at-b.at < int64(l.cfg.Every)
}

// charged is how much is charged to a bucket: ns until it is full, or uses.
func (l *Limiter) charged(b *bucket, at int64) int64 {
	if l.cfg.Fixed {
		if !l.running(b, at) {
			return 0
		}
		return int64(b.count)
	}
	return min(max(0, b.at-at), int64(l.cfg.Every)) // more means that the clock was set back
}

func (l *Limiter) use(addr netip.Addr, m Method, at int64) bool {
	key := l.key(addr)
	set := l.buckets.lock(key, m)
	defer set.unlock()
	b := set.find(key, m)
	left := b == nil || l.left(b, at)
	l.charge(set, b, bucket{key: key, method: m, used: true, at: at})
	return left
}

// charge makes a use of a bucket of the set, of a fresh one if b is nil, and
// returns the bucket.
func (l *Limiter) charge(set *bucketSet, b *bucket, fresh bucket) *bucket {
	at := fresh.at
	if b == nil {
		b = set.room(func(b *bucket) int64 { return l.charged(b, at) })
		*b = fresh
	}
	switch {
	case !l.cfg.Fixed:
		b.at = at + min(l.charged(b, at)+l.spacing, int64(l.cfg.Every))
	case !l.running(b, at):
		b.at, b.count = at, 1
	case b.count < 1<<32-1:
		b.count++
	}
	return b
}

// reached makes a use of a Fixed limiter and reports whether all uses of the
// time are made; then the count begins anew.
func (l *Limiter) reached(addr netip.Addr, now time.Time) bool {
	at := l.at(now)
	key := l.key(addr)
	set := l.buckets.lock(key, MethodNone)
	defer set.unlock()
	b := l.charge(set, set.find(key, MethodNone), bucket{key: key, used: true, at: at})
	if int(b.count) < l.cfg.Uses {
		return false
	}
	*b = bucket{}
	return true
}
