// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestBanAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBans(BanConfig{Failures: 3, Within: time.Minute, Length: 10 * time.Minute, MaxLength: time.Hour})
		a := netip.MustParseAddr("::ffff:192.0.2.1")
		fail := func(want bool, length time.Duration) {
			t.Helper()
			banned, until := b.Fail(a, time.Now())
			if banned != want || until.IsZero() == want || want && time.Until(until) != length {
				t.Fatalf("banned %v until %v, want %v for %v", banned, time.Until(until), want, length)
			}
		}
		fail(false, 0)
		fail(false, 0)
		time.Sleep(time.Minute) // since the first
		fail(false, 0)
		time.Sleep(30 * time.Second)
		fail(false, 0)
		if b.Banned(a, time.Now()) {
			t.Fatal("banned")
		}
		fail(true, 10*time.Minute)
		if !b.Banned(a, time.Now()) || !b.Banned(a.Unmap(), time.Now()) || b.Banned(a.Unmap().Next(), time.Now()) {
			t.Fatal("the wrong one is banned")
		}
		if banned, until := b.Fail(a, time.Now()); banned || time.Until(until) != 10*time.Minute {
			t.Fatal("a failure during a ban changes it")
		}
		time.Sleep(10*time.Minute - 1)
		if !b.Banned(a, time.Now()) {
			t.Fatal("the ban ended early")
		}
		time.Sleep(time.Nanosecond)
		if b.Banned(a, time.Now()) {
			t.Fatal("the ban has not ended")
		}
		for _, length := range []time.Duration{20 * time.Minute, 40 * time.Minute, time.Hour, time.Hour} {
			fail(false, 0)
			fail(false, 0)
			fail(true, length)
			time.Sleep(length)
		}
		time.Sleep(time.Hour) // as long again: forgotten
		fail(false, 0)
		fail(false, 0)
		fail(true, 10*time.Minute)
	})
}

func TestBanPrefixesAndAllowList(t *testing.T) {
	now := time.Now()
	b := NewBans(BanConfig{Failures: 1, Allow: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:0:1::5/128"), netip.MustParsePrefix("::ffff:192.0.2.0/120"), {},
	}})
	for s, want := range map[string]bool{
		"10.1.2.3": false, "::ffff:10.1.2.3": false, "192.0.2.7": false, "2001:db8:0:1::5": false,
		"11.0.0.1": true, "2001:db8:0:1::6": true,
	} {
		if banned, _ := b.Fail(netip.MustParseAddr(s), now); banned != want {
			t.Errorf("%s: banned %v, want %v", s, banned, want)
		}
	}
	if until := b.Ban(netip.MustParseAddr("10.0.0.1"), now, time.Hour); !until.IsZero() {
		t.Error("an exempt address was banned by hand")
	}
	for s, want := range map[string]bool{
		"2001:db8:0:1::5": false, "2001:db8:0:1::7%eth0": true, "2001:db8:0:2::6": false,
		"11.0.0.1": true, "::ffff:11.0.0.1": true, "11.0.0.2": false, "10.1.2.3": false,
	} {
		if got := b.Banned(netip.MustParseAddr(s), now); got != want {
			t.Errorf("%s: banned %v, want %v", s, got, want)
		}
	}
	if banned, until := b.Fail(netip.Addr{}, now); banned || !until.IsZero() || b.Banned(netip.Addr{}, now) {
		t.Error("the zero address is banned")
	}
}

func TestBanByHandListLift(t *testing.T) {
	now := time.Now()
	b := NewBans(BanConfig{Length: time.Minute})
	a := netip.MustParseAddr("192.0.2.1")
	if until := b.Ban(a, now, 0); until.Sub(now) != time.Minute {
		t.Fatalf("banned for %v", until.Sub(now))
	}
	if until := b.Ban(a, now, time.Hour); until.Sub(now) != time.Hour {
		t.Fatalf("banned for %v", until.Sub(now))
	}
	if until := b.Ban(a, now, time.Second); until.Sub(now) != time.Hour {
		t.Fatalf("a shorter ban took the place of a longer one: %v", until.Sub(now))
	}
	b.Ban(netip.MustParseAddr("192.0.2.2"), now, 2*time.Hour)
	b.Ban(netip.MustParseAddr("2001:db8::1"), now, 3*time.Hour)
	list := b.List(now)
	if len(list) != 3 || list[0].Prefix.String() != "2001:db8::/64" || list[2].Strikes != 1 {
		t.Fatalf("list %v", list)
	}
	if n := b.Lift(netip.MustParsePrefix("::ffff:192.0.2.0/120")); n != 2 || b.Banned(a, now) {
		t.Fatalf("%d lifted", n)
	}
	if n := b.Lift(netip.MustParsePrefix("2001:db8::7/128")); n != 1 {
		t.Fatalf("%d lifted", n)
	}
	if b.Lift(netip.Prefix{}) != 0 || len(b.List(now)) != 0 || b.len.Load() != 0 {
		t.Fatal("not empty")
	}
}

func TestBansFull(t *testing.T) {
	now := time.Now()
	store := NewMemoryStore(1)
	b := NewBans(BanConfig{Failures: 1, Capacity: 100, Store: store})
	for i := range uint64(5000) {
		if banned, _ := b.Fail(v6(i), now); !banned {
			t.Fatalf("failure %d does not ban", i)
		}
		if !b.Banned(v6(i), now) {
			t.Fatal("the new ban gave way")
		}
	}
	if len(b.List(now)) != 100 {
		t.Fatalf("%d bans", len(b.List(now)))
	}
	if b.Banned(netip.MustParseAddr("192.0.2.1"), now) {
		t.Fatal("a full list bans everybody")
	}
	if kept, _ := store.Bans(context.Background()); len(kept) != 100 {
		t.Fatalf("%d bans kept", len(kept))
	}
}

func TestBansRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemoryStore(1)
		first := NewBans(BanConfig{Failures: 1, Length: time.Hour, Store: store})
		a, exempt, lifted := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.3")
		for _, addr := range []netip.Addr{a, exempt, lifted, v6(1)} {
			first.Fail(addr, time.Now())
		}
		first.Lift(AddrPrefix(lifted))
		second := NewBans(BanConfig{Failures: 1, Length: time.Hour, Bits6: 56, Store: store, Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		if err := second.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		if list := second.List(time.Now()); len(list) != 1 || !second.Banned(a, time.Now()) {
			t.Fatalf("restored %v", list)
		}
		if kept, _ := store.Bans(t.Context()); len(kept) != 1 {
			t.Fatalf("%d bans kept", len(kept))
		}
		time.Sleep(90 * time.Minute) // over, not forgotten
		third := NewBans(BanConfig{Failures: 1, Length: time.Hour, Store: store})
		if err := third.Restore(t.Context()); err != nil || third.Banned(a, time.Now()) {
			t.Fatal("banned for longer than the ban lasts", err)
		}
		if _, until := third.Fail(a, time.Now()); time.Until(until) != 2*time.Hour {
			t.Fatalf("the second ban lasts %v", time.Until(until))
		}
	})
	if err := NewBans(BanConfig{}).Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := NewBans(BanConfig{Store: brokenStore{}}).Restore(t.Context()); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
}

var errBroken = errors.New("broken")

type brokenStore struct{ Store }

func (brokenStore) Bans(context.Context) ([]Ban, error) { return nil, errBroken }

// TestLibknockGuard is libknock.md section 14 in our words: banned, or limited
// and then banned for the TTL.
func TestLibknockGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter := NewLimiter(LimitConfig{Uses: 1, Every: time.Second, Fixed: true, Bits6: 128})
		bans := NewBans(BanConfig{Bits6: 128})
		guard := func(addr netip.Addr) Reason {
			now := time.Now()
			switch {
			case bans.Banned(addr, now):
				return ReasonBanned
			case !limiter.Take(addr, MethodNone, now):
				bans.Ban(addr, now, time.Minute)
				return ReasonLimited
			}
			return ReasonNone
		}
		a := netip.MustParseAddr("2001:db8::1")
		for i, want := range []Reason{ReasonNone, ReasonLimited, ReasonBanned, ReasonBanned} {
			if got := guard(a); got != want {
				t.Fatalf("use %d: %v, want %v", i+1, got, want)
			}
		}
		if guard(a.Next()) != ReasonNone {
			t.Fatal("another address is banned")
		}
		time.Sleep(time.Minute)
		if guard(a) != ReasonNone {
			t.Fatal("banned for longer than the TTL")
		}
	})
}

func TestBansConcurrent(t *testing.T) {
	store := NewMemoryStore(1)
	b := NewBans(BanConfig{Failures: 50, Capacity: 20, Store: store})
	now := time.Now()
	made := make(chan netip.Addr, 10_000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 2000 {
				a := v6(uint64(i % 40))
				if banned, _ := b.Fail(a, now); banned {
					made <- a
				}
				if i%100 == 0 {
					b.Lift(AddrPrefix(a))
				}
				b.Banned(a, now)
				b.List(now)
			}
		})
	}
	wg.Wait()
	kept, _ := store.Bans(t.Context())
	if list := b.List(now); len(list) != len(kept) || len(list) > 20 {
		t.Fatalf("%d bans, %d kept", len(list), len(kept))
	}
}
