// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package coretest holds the conformance suites of the interfaces of knockcore:
// whoever implements one runs its suite.
package coretest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// window is the time window of the suite's frames.
const window = 30 * time.Second

// StoreSuite tests an implementation of knockcore.Store. open opens the store
// that lives in dir, or one in memory; it must remember at least 1024 nonces and
// at most a million, and its clock must be time.Now. It is called again for the
// same dir after Close. A durable store then knows everything again; of another
// one the suite asks only what holds while it is open.
func StoreSuite(t *testing.T, open func(t *testing.T, dir string) knockcore.Store, durable bool) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, h *storeHarness)
	}{
		{"one of many spends wins", testSpendOnce},
		{"parallel spends of different nonces", testSpendMany},
		{"seen", testSeen},
		{"clients are apart", testClientsApart},
		{"full guard refuses", testReplayFull},
		{"old frames", testOldFrames},
		{"grants", testGrants},
		{"grants replaced and deleted", testGrantsChange},
		{"grants expire", testGrantsExpire},
		{"bans", testBans},
		{"bans are forgotten", testBansForgotten},
		{"parallel grants and bans", testParallelGrants},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir() + "/state"
			h := &storeHarness{T: t, durable: durable, open: func() knockcore.Store { return open(t, dir) }}
			h.Store = h.open()
			defer func() { h.must(h.Close()) }()
			test.run(t, h)
		})
	}
}

type storeHarness struct {
	knockcore.Store
	*testing.T
	durable bool
	open    func() knockcore.Store
}

// reopen closes and opens a durable store; it returns false for others.
func (h *storeHarness) reopen() bool {
	h.Helper()
	if !h.durable {
		return false
	}
	h.must(h.Close())
	h.Store = h.open()
	return true
}

func (h *storeHarness) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// check is must for other goroutines than the test's.
func (h *storeHarness) check(err error) {
	h.Helper()
	if err != nil {
		h.Error(err)
	}
}

// spend spends a nonce now and wants this outcome. Any goroutine may call it.
func (h *storeHarness) spend(n knockcore.Nonce, want knockcore.Reason) {
	h.Helper()
	err := h.Spend(context.Background(), n, time.Now(), window)
	if got := knockcore.ReasonOf(err); got != want {
		h.Errorf("spending gives %v, want %v", err, want)
	}
}

func nonce(i int, client string) knockcore.Nonce {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(i))
	return knockcore.Nonce{Key: knockcore.NewReplayKey(knockcore.ReplayUDP, client, b[:]), Client: client, Time: time.Now()}
}

func testSpendOnce(t *testing.T, h *storeHarness) {
	for round := range 10 {
		n := nonce(round, "alice")
		var wins, replays atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 100 {
			wg.Go(func() {
				<-start
				switch err := h.Spend(context.Background(), n, time.Now(), window); knockcore.ReasonOf(err) {
				case knockcore.ReasonNone:
					wins.Add(1)
				case knockcore.ReasonReplay:
					replays.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		if wins.Load() != 1 || replays.Load() != 99 {
			t.Fatalf("%d won, %d were replays", wins.Load(), replays.Load())
		}
	}
	if h.reopen() {
		for round := range 10 {
			h.spend(nonce(round, "alice"), knockcore.ReasonReplay)
		}
	}
}

func testSpendMany(_ *testing.T, h *storeHarness) {
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 60 {
				h.spend(nonce(i, fmt.Sprint("client", worker)), knockcore.ReasonNone)
			}
		})
	}
	wg.Wait()
	h.reopen()
	for worker := range 8 {
		for i := range 60 {
			h.spend(nonce(i, fmt.Sprint("client", worker)), knockcore.ReasonReplay)
		}
	}
}

func testSeen(t *testing.T, h *storeHarness) {
	n := nonce(1, "alice")
	if h.Seen(n.Key) {
		t.Fatal("seen before it was spent")
	}
	h.spend(n, knockcore.ReasonNone)
	h.reopen()
	if !h.Seen(n.Key) || h.Seen(nonce(2, "alice").Key) {
		t.Fatal("seen is wrong after spending")
	}
}

func testClientsApart(_ *testing.T, h *storeHarness) {
	h.spend(nonce(1, "alice"), knockcore.ReasonNone)
	h.spend(nonce(1, "bob"), knockcore.ReasonNone)
	h.spend(nonce(1, "alice"), knockcore.ReasonReplay)
}

func testReplayFull(t *testing.T, h *storeHarness) {
	// One client alone must come to an end, sooner or later, without harm to
	// others.
	const most = 1 << 20
	for i := range most + 1 {
		err := h.Spend(context.Background(), nonce(i, "wild"), time.Now(), time.Hour)
		if knockcore.ReasonOf(err) == knockcore.ReasonReplayFull {
			h.spend(nonce(0, "wild"), knockcore.ReasonReplay)
			h.spend(nonce(0, "calm"), knockcore.ReasonNone)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the guard was never full")
}

// testOldFrames makes the store forget a frame, and wants it refused whatever the
// clock says.
func testOldFrames(t *testing.T, h *storeHarness) {
	old := nonce(1, "alice")
	h.spend(old, knockcore.ReasonNone)
	later := time.Now().Add(3 * window)
	var err error
	for i := 0; i < 1<<20 && h.Seen(old.Key); i++ {
		n := nonce(i, fmt.Sprint("client", i%4))
		n.Time = later
		err = h.Spend(context.Background(), n, later, window)
	}
	if h.Seen(old.Key) {
		t.Fatalf("still seen after a million nonces, the last of which gave %v", err)
	}
	for range 3 {
		err := h.Spend(context.Background(), old, old.Time, window)
		if r := knockcore.ReasonOf(err); r != knockcore.ReasonStale && r != knockcore.ReasonReplay {
			t.Fatalf("a forgotten frame gives %v", err)
		}
		h.reopen()
	}
}

func testGrant(i int, scope knockcore.Scope) *knockcore.Grant {
	now := time.Now()
	addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
	if i%2 == 1 {
		addr = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)})
	}
	g := &knockcore.Grant{
		ID: knockcore.NewGrantID(), Client: fmt.Sprint("client", i), Service: "ssh", Method: knockcore.MethodUDP, Scope: scope,
		Prefix: knockcore.AddrPrefix(addr), Source: addr, Made: now, Expires: now.Add(time.Hour), Uses: -1,
	}
	if scope == knockcore.ScopeSession {
		g.Uses, g.Session = 1, bytes.Repeat([]byte{byte(i), 0xa5}, 16)
	}
	if i%3 == 2 {
		g.Prefix = netip.PrefixFrom(addr, addr.BitLen()-8).Masked()
	}
	return g
}

// wantGrants wants exactly these grants kept, times to within a second.
func (h *storeHarness) wantGrants(want ...*knockcore.Grant) {
	h.Helper()
	got, err := h.Grants(context.Background())
	h.must(err)
	byID := func(a, b *knockcore.Grant) int { return cmp.Compare(a.ID.String(), b.ID.String()) }
	slices.SortFunc(got, byID)
	want = slices.SortedFunc(slices.Values(want), byID)
	if len(got) != len(want) {
		h.Fatalf("%d grants kept, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := *got[i]
		if d := g.Expires.Sub(w.Expires).Abs(); d > time.Second {
			h.Errorf("grant %v expires %v off", g.ID, d)
		}
		if d := g.Made.Sub(w.Made).Abs(); d > time.Second {
			h.Errorf("grant %v was made %v off", g.ID, d)
		}
		if !bytes.Equal(g.Session, w.Session) {
			h.Errorf("grant %v has session %x, want %x", g.ID, g.Session, w.Session)
		}
		a, b := g, *w
		a.Made, a.Expires, a.Session, b.Made, b.Expires, b.Session = time.Time{}, time.Time{}, nil, time.Time{}, time.Time{}, nil
		if fmt.Sprintf("%+v", a) != fmt.Sprintf("%+v", b) {
			h.Errorf("grant %+v, want %+v", a, b)
		}
	}
}

func testGrants(_ *testing.T, h *storeHarness) {
	h.wantGrants()
	var want []*knockcore.Grant
	for i := range 20 {
		g := testGrant(i, knockcore.ScopeAddress)
		if i%4 == 3 {
			g = testGrant(i, knockcore.ScopeSession)
		}
		h.must(h.SaveGrant(context.Background(), g))
		want = append(want, g)
	}
	h.wantGrants(want...)
	for range 3 {
		if h.reopen() {
			h.wantGrants(want...)
		}
	}
}

func testGrantsChange(_ *testing.T, h *storeHarness) {
	ctx := context.Background()
	a, b, c := testGrant(0, knockcore.ScopeAddress), testGrant(1, knockcore.ScopeAddress), testGrant(2, knockcore.ScopeAddress)
	for _, g := range []*knockcore.Grant{a, b, c} {
		h.must(h.SaveGrant(ctx, g))
	}
	longer := *a
	longer.Expires = a.Expires.Add(time.Hour)
	h.must(h.SaveGrant(ctx, &longer))
	h.must(h.DeleteGrant(ctx, b.ID))
	h.must(h.DeleteGrant(ctx, b.ID))
	h.must(h.DeleteGrant(ctx, knockcore.NewGrantID()))
	h.wantGrants(&longer, c)
	if h.reopen() {
		h.wantGrants(&longer, c)
	}
	h.must(h.SaveGrant(ctx, b))
	h.must(h.DeleteGrant(ctx, c.ID))
	h.reopen()
	h.wantGrants(&longer, b)
}

func testGrantsExpire(_ *testing.T, h *storeHarness) {
	ctx := context.Background()
	over, live := testGrant(0, knockcore.ScopeAddress), testGrant(1, knockcore.ScopeAddress)
	over.Made, over.Expires = over.Made.Add(-time.Hour), over.Made.Add(-time.Millisecond)
	h.must(h.SaveGrant(ctx, over))
	h.must(h.SaveGrant(ctx, live))
	h.wantGrants(live)
	h.reopen()
	h.wantGrants(live)
	live.Expires = time.Now().Add(-time.Millisecond)
	again := *live
	h.must(h.SaveGrant(ctx, &again))
	h.reopen()
	h.wantGrants()
}

func testBan(s string, made time.Time, length time.Duration, strikes int) knockcore.Ban {
	return knockcore.Ban{Prefix: netip.MustParsePrefix(s), Made: made, Until: made.Add(length), Strikes: strikes}
}

func (h *storeHarness) wantBans(want ...knockcore.Ban) {
	h.Helper()
	got, err := h.Bans(context.Background())
	h.must(err)
	byPrefix := func(a, b knockcore.Ban) int { return a.Prefix.Compare(b.Prefix) }
	slices.SortFunc(got, byPrefix)
	want = slices.SortedFunc(slices.Values(want), byPrefix)
	if len(got) != len(want) {
		h.Fatalf("%d bans kept, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Prefix != w.Prefix || g.Strikes != w.Strikes || g.Until.Sub(w.Until).Abs() > time.Second || g.Made.Sub(w.Made).Abs() > time.Second {
			h.Errorf("ban %+v, want %+v", g, w)
		}
	}
}

func testBans(_ *testing.T, h *storeHarness) {
	ctx, now := context.Background(), time.Now()
	a, b, c := testBan("192.0.2.1/32", now, time.Hour, 1), testBan("2001:db8:1::/64", now, time.Minute, 3), testBan("192.0.2.3/32", now, time.Minute, 1)
	for _, ban := range []knockcore.Ban{a, b, c} {
		h.must(h.SaveBan(ctx, ban))
	}
	h.wantBans(a, b, c)
	h.reopen()
	h.wantBans(a, b, c)
	longer := testBan("192.0.2.1/32", now, 2*time.Hour, 2)
	h.must(h.SaveBan(ctx, longer))
	h.must(h.DeleteBan(ctx, b.Prefix))
	h.must(h.DeleteBan(ctx, b.Prefix))
	h.must(h.DeleteBan(ctx, netip.MustParsePrefix("203.0.113.0/24")))
	h.wantBans(longer, c)
	h.reopen()
	h.wantBans(longer, c)
}

func testBansForgotten(_ *testing.T, h *storeHarness) {
	ctx, now := context.Background(), time.Now()
	over := testBan("192.0.2.1/32", now.Add(-90*time.Minute), time.Hour, 2)
	forgotten := testBan("192.0.2.2/32", now.Add(-2*time.Hour-time.Millisecond), time.Hour, 2)
	h.must(h.SaveBan(ctx, over))
	h.must(h.SaveBan(ctx, forgotten))
	h.wantBans(over)
	h.reopen()
	h.wantBans(over)
}

func testParallelGrants(_ *testing.T, h *storeHarness) {
	ctx := context.Background()
	kept := make([]*knockcore.Grant, 16)
	var wg sync.WaitGroup
	for worker := range kept {
		wg.Go(func() {
			for i := range 50 {
				g := testGrant(i, knockcore.ScopeAddress)
				h.check(h.SaveGrant(ctx, g))
				h.check(h.SaveBan(ctx, knockcore.Ban{Prefix: g.Prefix, Made: g.Made, Until: g.Expires, Strikes: 1}))
				h.check(h.DeleteBan(ctx, g.Prefix))
				if i == 49 {
					kept[worker] = g
				} else {
					h.check(h.DeleteGrant(ctx, g.ID))
				}
			}
		})
	}
	wg.Wait()
	h.reopen()
	h.wantGrants(kept...)
	h.wantBans()
}
