// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func v6(i uint64) netip.Addr {
	b := [16]byte{0x20, 1, 0xd, 0xb8}
	binary.BigEndian.PutUint32(b[4:], uint32(i))
	b[15] = byte(i)
	return netip.AddrFrom16(b)
}

func TestLimitTokenBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(LimitConfig{Uses: 4, Every: 4 * time.Second})
		a := netip.MustParseAddr("192.0.2.1")
		take := func(want bool) {
			t.Helper()
			if got := l.Allow(a, MethodUDP, time.Now()); got != want {
				t.Fatalf("allowed %v, want %v", got, want)
			}
			if got := l.Take(a, MethodUDP, time.Now()); got != want {
				t.Fatalf("taken %v, want %v", got, want)
			}
		}
		for range 4 {
			take(true)
		}
		for range 100 {
			take(false) // uses that are not there are not owed
		}
		time.Sleep(999 * time.Millisecond)
		take(false) // costs the second that it waited: nothing comes of hammering
		time.Sleep(time.Second)
		take(true)
		take(false)
		time.Sleep(time.Minute)
		for range 4 {
			take(true)
		}
		take(false)
		if !l.Allow(a, MethodFwknop, time.Now()) || !l.Allow(a.Next(), MethodUDP, time.Now()) {
			t.Fatal("another method or address is charged too")
		}
	})
}

func TestLimitPrefixes(t *testing.T) {
	now := time.Now()
	l := NewLimiter(LimitConfig{Uses: 1})
	l.Charge(netip.MustParseAddr("192.0.2.1"), MethodUDP, now)
	l.Charge(netip.MustParseAddr("2001:db8:0:1::1%eth0"), MethodUDP, now)
	for s, want := range map[string]bool{
		"::ffff:192.0.2.1":       false,
		"192.0.2.1":              false,
		"192.0.2.0":              true,
		"2001:db8:0:1:ffff::2":   false,
		"2001:db8:0:1::1%eth1":   false,
		"2001:db8:0:2::1":        true,
		"2001:db8::1":            true,
		"::":                     true,
		"0.0.0.0":                true,
		"::192.0.2.1":            true,
		"::fffe:192.0.2.1%eth0":  true,
		"64:ff9b::192.0.2.1":     true,
		"ffff:ffff:ffff:ffff::1": true,
	} {
		if got := l.Allow(netip.MustParseAddr(s), MethodUDP, now); got != want {
			t.Errorf("%s: allowed %v, want %v", s, got, want)
		}
	}
	l = NewLimiter(LimitConfig{Uses: 1, Bits4: 24, Bits6: 48})
	l.Charge(netip.MustParseAddr("192.0.2.1"), MethodUDP, now)
	l.Charge(netip.MustParseAddr("2001:db8:0:1::1"), MethodUDP, now)
	for s, want := range map[string]bool{"192.0.2.200": false, "192.0.3.1": true, "2001:db8:0:ffff::": false, "2001:db8:1::": true} {
		if got := l.Allow(netip.MustParseAddr(s), MethodUDP, now); got != want {
			t.Errorf("%s: allowed %v, want %v", s, got, want)
		}
	}
	// The zero Addr must not panic.
	l.Charge(netip.Addr{}, MethodUDP, now)
	l.Good(netip.Addr{}, now)
	if !l.Allow(netip.Addr{}, MethodUDP, now) {
		t.Error("a good address is refused")
	}
}

// TestLimitFixedWindow is libknock.md section 14: the first use starts a window
// of Every with Limit uses, which restarts on the first use after it ended.
func TestLimitFixedWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(LimitConfig{Uses: 3, Every: time.Second, Fixed: true, Bits6: 128})
		a := netip.MustParseAddr("2001:db8::1")
		for range 5 {
			for i := range 6 {
				if got, want := l.Take(a, MethodNone, time.Now()), i < 3; got != want {
					t.Fatalf("use %d: %v, want %v", i+1, got, want)
				}
				time.Sleep(100 * time.Millisecond)
			}
			if !l.Take(a.Next(), MethodNone, time.Now()) {
				t.Fatal("another address of the /64 is limited")
			}
			time.Sleep(300 * time.Millisecond) // 900 ms since the first use
			if l.Allow(a, MethodNone, time.Now()) {
				t.Fatal("the window ended early")
			}
			time.Sleep(100 * time.Millisecond)
			if !l.Allow(a, MethodNone, time.Now()) {
				t.Fatal("the window has not ended")
			}
			time.Sleep(time.Second)
		}
	})
}

// TestLimitClockSetBack limits by a clock without monotonic reading: nobody is
// locked out when it is set back.
func TestLimitClockSetBack(t *testing.T) {
	for _, fixed := range []bool{false, true} {
		l := NewLimiter(LimitConfig{Uses: 2, Every: time.Second, Fixed: fixed})
		a := netip.MustParseAddr("192.0.2.1")
		now := time.Now().Round(0)
		for range 5 {
			l.Charge(a, MethodUDP, now)
		}
		now = now.Add(-time.Hour)
		l.Charge(a, MethodUDP, now)
		if now = now.Add(time.Second); !l.Allow(a, MethodUDP, now) {
			t.Errorf("fixed %v: still limited", fixed)
		}
	}
}

// TestLimitGood floods a limiter with junk in the name of a victim and of
// everybody else: the victim, which knocked lately, stays allowed.
func TestLimitGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(LimitConfig{Uses: 2, Capacity: 1024, GoodFor: time.Minute})
		victim, stranger := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		l.Good(victim, time.Now())
		for i := range uint64(100_000) {
			l.Charge(victim, MethodUDP, time.Now())
			l.Charge(v6(i), MethodUDP, time.Now())
		}
		for range 50 {
			l.Charge(stranger, MethodUDP, time.Now())
		}
		if !l.Allow(victim, MethodUDP, time.Now()) || !l.IsGood(victim, time.Now()) {
			t.Fatal("the victim is locked out")
		}
		if l.Take(victim, MethodUDP, time.Now()) {
			t.Fatal("Take asks whether the address is good")
		}
		if l.Allow(stranger, MethodUDP, time.Now()) || l.IsGood(stranger, time.Now()) {
			t.Fatal("a stranger is good")
		}
		time.Sleep(time.Minute)
		if l.IsGood(victim, time.Now()) {
			t.Fatal("good for ever")
		}
		if !l.Allow(victim, MethodUDP, time.Now()) {
			t.Fatal("limited a minute later")
		}
	})
}

// TestLimitFull: a full table takes no more memory, forgets little ones first
// and refuses nobody new.
func TestLimitFull(t *testing.T) {
	now := time.Now()
	l := NewLimiter(LimitConfig{Uses: 100, Every: time.Hour, Capacity: 1 << 12})
	wild := netip.MustParseAddr("192.0.2.1")
	for range 100 {
		l.Charge(wild, MethodUDP, now)
	}
	for i := range uint64(1 << 16) {
		a := v6(i)
		if !l.Take(a, MethodUDP, now) {
			t.Fatalf("new address %v is refused", a)
		}
	}
	if n := l.Len(); n > 1<<12 {
		t.Fatalf("%d buckets", n)
	}
	if l.Allow(wild, MethodUDP, now) {
		t.Fatal("the one that is charged most gave way")
	}
}

func TestLimitConcurrent(t *testing.T) {
	l := NewLimiter(LimitConfig{Uses: 1000, Every: time.Hour, Fixed: true, Capacity: 8})
	now := time.Now()
	a := netip.MustParseAddr("192.0.2.1")
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for range 8 {
		wg.Go(func() {
			n := 0
			for range 500 {
				if l.Take(a, MethodUDP, now) {
					n++
				}
				l.Good(v6(uint64(n)), now)
				l.IsGood(a, now)
			}
			mu.Lock()
			taken += n
			mu.Unlock()
		})
	}
	wg.Wait()
	if taken != 1000 {
		t.Fatalf("%d uses taken", taken)
	}
}

func TestLimitAllocs(t *testing.T) {
	l := NewLimiter(LimitConfig{Capacity: 64})
	b := NewBans(BanConfig{})
	now := time.Now()
	b.Ban(v6(3), now, time.Hour)
	i := uint64(0)
	if n := testing.AllocsPerRun(1000, func() {
		i++
		l.Allow(v6(i), MethodUDP, now)
		l.Charge(v6(i), MethodUDP, now)
		l.Good(v6(i), now)
		b.Banned(v6(i), now)
		b.Fail(v6(i), now)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkLimiter(b *testing.B) {
	now := time.Now()
	b.Run("allow", func(b *testing.B) {
		b.ReportAllocs()
		l := NewLimiter(LimitConfig{})
		i := uint64(0)
		for b.Loop() {
			i++
			l.Allow(v6(i), MethodUDP, now)
		}
	})
	b.Run("charge full table", func(b *testing.B) {
		b.ReportAllocs()
		l := NewLimiter(LimitConfig{})
		i := uint64(0)
		for b.Loop() {
			i++
			l.Charge(v6(i), MethodUDP, now)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		l := NewLimiter(LimitConfig{})
		b.RunParallel(func(pb *testing.PB) {
			i := uint64(0)
			for pb.Next() {
				i++
				if l.Allow(v6(i), MethodUDP, now) {
					l.Charge(v6(i), MethodUDP, now)
				}
			}
		})
	})
	b.Run("banned", func(b *testing.B) {
		b.ReportAllocs()
		bans := NewBans(BanConfig{})
		for i := range uint64(10_000) {
			bans.Ban(v6(i), now, time.Hour)
		}
		i := uint64(0)
		for b.Loop() {
			i++
			bans.Banned(v6(i), now)
		}
	})
}
