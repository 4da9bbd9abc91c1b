// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Ban keeps a prefix out until it is over.
type Ban struct {
	// Prefix is whom it keeps out: normal as of NormalPrefix.
	Prefix netip.Prefix
	// Made and Until bound it.
	Made, Until time.Time
	// Strikes is how often the prefix was banned in a row, this time included; at
	// least 1.
	Strikes int
}

// Over reports whether the ban has ended.
func (b Ban) Over(now time.Time) bool { return !now.Before(b.Until) }

// Forgotten reports whether the ban has been over for as long as it lasted: then
// it does not make the next one longer.
func (b Ban) Forgotten(now time.Time) bool { return !now.Before(b.Until.Add(b.Until.Sub(b.Made))) }

// BanConfig is what Bans go by; the zero value is a usable default.
type BanConfig struct {
	// Failures within Within, counted from the first one, make a ban. Defaults:
	// 10 and 10m.
	Failures int
	Within   time.Duration
	// Length is how long the first ban lasts. Each further one that comes before
	// the last is forgotten lasts twice as long as that, up to MaxLength.
	// Defaults: 10m and 24h.
	Length, MaxLength time.Duration
	// Allow lists who is never banned.
	Allow []netip.Prefix
	// Bits4 and Bits6 are the lengths of the prefixes that are banned together.
	// Defaults: 32 and 64.
	Bits4, Bits6 int
	// Capacity is how many bans are kept. Default: 65536.
	Capacity int
	// Store keeps the bans over restarts; nil means that nobody does. It is called
	// on the goroutine that changes a ban, with a deadline of a second; what it
	// can't keep is banned nevertheless.
	Store Store
	// Wall keeps who is banned out of ports of this host, as far as it can; nil means
	// that nobody does. It is called like the store, before it.
	Wall Wall
}

// Bans keeps addresses out that failed too often. It is bounded, and safe for
// concurrent use.
//
// What is a failure is the caller's business: a wrong API key, or a TCP frame
// whose hint fits a client and which then fails. Neither can be spoofed, and
// neither happens to a stranger by accident. Datagrams, SYNs and foreign streams
// are not failures.
//
// A ban never stops a valid frame or a live grant: the caller looks at the frame
// first and asks Banned only to decide what a refused one gets (the cover or
// nothing), or where there is no frame to look at. Otherwise an attacker behind
// the same address, or the owner with an outdated key on a second device, would
// lock the owner out. A Wall can't look at frames; it spares who holds a grant.
//
// When there are as many bans as may be kept, the one of a few that ends first
// gives way. A full list never bans everybody.
type Bans struct {
	cfg      BanConfig
	failures *Limiter
	len      atomic.Int64 // of bans

	mu   sync.RWMutex
	bans map[netip.Prefix]Ban

	tellMu sync.Mutex // orders what the wall and the store are told
}

// NewBans makes an empty list. Values that are not positive mean the default.
func NewBans(cfg BanConfig) *Bans {
	setDefault(&cfg.Failures, 10)
	setDefault(&cfg.Within, 10*time.Minute)
	setDefault(&cfg.Length, 10*time.Minute)
	setDefault(&cfg.MaxLength, 24*time.Hour)
	setDefault(&cfg.Bits4, 32)
	setDefault(&cfg.Bits6, 64)
	setDefault(&cfg.Capacity, DefaultLimitCapacity)
	cfg.Bits4, cfg.Bits6 = min(cfg.Bits4, 32), min(cfg.Bits6, 128)
	cfg.Length = min(cfg.Length, cfg.MaxLength)
	allow := make([]netip.Prefix, 0, len(cfg.Allow))
	for _, p := range cfg.Allow {
		if p = NormalPrefix(p); p.IsValid() {
			allow = append(allow, p)
		}
	}
	cfg.Allow = allow
	return &Bans{
		cfg: cfg,
		failures: NewLimiter(LimitConfig{
			Uses: cfg.Failures, Every: cfg.Within, Fixed: true, Bits4: cfg.Bits4, Bits6: cfg.Bits6, Capacity: cfg.Capacity,
		}),
		bans: make(map[netip.Prefix]Ban),
	}
}

// Fail counts a failure. banned reports that it was one too many and the prefix
// is banned from now on; until is when the ban ends, also of one that was there
// before, and zero if there is none.
func (b *Bans) Fail(addr netip.Addr, now time.Time) (banned bool, until time.Time) {
	p := b.prefix(addr)
	if !p.IsValid() || b.exempt(addr) {
		return false, time.Time{}
	}
	if ban, ok := b.find(p); ok && !ban.Over(now) {
		return false, ban.Until
	}
	if !b.failures.reached(addr, now) {
		return false, time.Time{}
	}
	return b.add(p, now, 0)
}

// Ban bans the address's prefix for this long, or for as long as its next ban
// would last if length is not positive; a ban that ends later stays. It returns
// when the ban ends, the zero time if the address is never banned.
func (b *Bans) Ban(addr netip.Addr, now time.Time, length time.Duration) (until time.Time) {
	p := b.prefix(addr)
	if !p.IsValid() || b.exempt(addr) {
		return time.Time{}
	}
	_, until = b.add(p, now, length)
	return until
}

// Banned reports whether the address is banned now. It allocates nothing.
func (b *Bans) Banned(addr netip.Addr, now time.Time) bool {
	if b.len.Load() == 0 {
		return false
	}
	ban, ok := b.find(b.prefix(addr))
	return ok && !ban.Over(now) && !b.exempt(addr)
}

// prefix is what is banned with an address; the zero Prefix for the zero Addr.
func (b *Bans) prefix(addr netip.Addr) netip.Prefix {
	addr = plain(addr)
	length := b.cfg.Bits6
	if addr.Is4() {
		length = b.cfg.Bits4
	}
	p, err := addr.Prefix(length)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// exempt reports whether the address is never banned.
func (b *Bans) exempt(addr netip.Addr) bool {
	addr = plain(addr)
	for _, p := range b.cfg.Allow {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func (b *Bans) find(p netip.Prefix) (Ban, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	ban, ok := b.bans[p]
	return ban, ok
}

// add makes a ban, of its regular length if length is not positive.
func (b *Bans) add(p netip.Prefix, now time.Time, length time.Duration) (added bool, until time.Time) {
	changed := []netip.Prefix{p}
	b.mu.Lock()
	former, known := b.bans[p]
	ban := Ban{Prefix: p, Made: now, Strikes: 1}
	if known && !former.Forgotten(now) {
		ban.Strikes = former.Strikes + 1
	}
	ban.Until = now.Add(b.length(ban.Strikes))
	if length > 0 {
		ban.Until = now.Add(length)
	}
	if known && !former.Over(now) {
		if length <= 0 || !ban.Until.After(former.Until) {
			b.mu.Unlock()
			return false, former.Until
		}
		ban.Strikes = former.Strikes
	}
	if !known {
		if len(b.bans) >= b.cfg.Capacity {
			changed = append(changed, b.giveWay())
		}
		b.len.Add(1)
	}
	b.bans[p] = ban
	b.mu.Unlock()
	b.tell(changed...)
	return true, ban.Until
}

// length is how long the ban of so many strikes lasts.
func (b *Bans) length(strikes int) time.Duration {
	length := b.cfg.Length
	for range strikes - 1 {
		if length >= b.cfg.MaxLength/2 {
			return b.cfg.MaxLength
		}
		length *= 2
	}
	return length
}
