// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package coretest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

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
