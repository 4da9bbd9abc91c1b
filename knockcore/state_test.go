// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"bytes"
	"context"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestPageThroughAMillion lists a million live grants page by page: each comes
// once, in the order of the IDs.
func TestPageThroughAMillion(t *testing.T) {
	n := 1_000_000 / testScale
	if testing.Short() {
		n = 10_000
	}
	state := NewState(NewMemoryStore(1), n)
	expires := time.Now().Add(time.Hour)
	for i := range n {
		g := &Grant{ID: NewGrantID(), Client: "alice", Service: "ssh", Scope: ScopeAddress, Prefix: AddrPrefix(addrOf(i)), Expires: expires}
		if _, err := state.reg.put(g, bounds{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := state.reg.put(&Grant{ID: NewGrantID(), Client: "bob", Service: "ssh", Scope: ScopeAddress, Prefix: AddrPrefix(addrOf(n)), Expires: expires}, bounds{}); ReasonOf(err) != ReasonLimited {
		t.Errorf("one more than allowed: %v", err)
	}
	const pageSize = 250_000 / testScale
	seen, after := 0, GrantID{}
	for more := true; more; {
		var page []*Grant
		page, more = state.Page(nil, after, pageSize)
		for _, g := range page {
			if bytes.Compare(g.ID[:], after[:]) <= 0 {
				t.Fatalf("%v after %v", g.ID, after)
			}
			after = g.ID
			seen++
		}
		if more && len(page) != pageSize {
			t.Fatalf("a page of %d", len(page))
		}
	}
	if seen != n {
		t.Errorf("%d of %d grants were listed", seen, n)
	}
}

// TestListingHoldsNobodyUp changes grants from within a listing, which therefore must
// not hold them: each that is there all the time is told once. A page of many takes
// the memory of a page.
func TestListingHoldsNobodyUp(t *testing.T) {
	const n = 100_000
	state := NewState(NewMemoryStore(1), 0)
	expires := time.Now().Add(time.Hour)
	put := func(i int) GrantID {
		g := &Grant{ID: NewGrantID(), Client: "alice", Service: "ssh", Scope: ScopeAddress, Prefix: AddrPrefix(addrOf(i)), Made: time.Now(), Expires: expires, Uses: -1}
		if _, err := state.reg.put(g, bounds{}); err != nil {
			t.Fatal(err)
		}
		return g.ID
	}
	told := make(map[GrantID]int, n)
	for i := range n {
		told[put(i)] = 0
	}
	more := 0
	state.Each(func(g *Grant) {
		if _, known := told[g.ID]; known {
			told[g.ID]++
			if more++; more%10 == 0 {
				state.reg.remove(put(n + more/20))
			}
		}
	})
	for id, times := range told {
		if times != 1 {
			t.Fatalf("%v was told %d times", id, times)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	page, _ := state.Page(nil, GrantID{}, 1000)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 || len(page) != 1000 {
		t.Errorf("a page of %d grants among %d took %d KB", len(page), n, took>>10)
	}
}

// TestRevokeRacesExpiryAndRegrant lets grants be made, renewed, revoked and swept
// at once. Whatever the order, in the end the table, the registry and the windows
// agree.
func TestRevokeRacesExpiryAndRegrant(t *testing.T) {
	g := newGateTest(t, func(c *Config) { c.Observer = nil })
	addr := netip.MustParseAddr("203.0.113.7")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	work := func(f func()) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f()
				}
			}
		})
	}
	for _, length := range []time.Duration{time.Millisecond, time.Minute} {
		work(func() {
			_, _ = g.GrantByHand(context.Background(), "alice", "ssh", AddrPrefix(addr), length)
		})
	}
	work(func() {
		for _, grant := range g.State().Grants(nil) {
			_, _ = g.Revoke(context.Background(), grant.ID, "test")
		}
	})
	work(func() { g.Sweep(context.Background()) })
	<-time.After(300 * time.Millisecond)
	close(stop)
	wg.Wait()
	for _, grant := range g.State().Grants(nil) {
		if _, err := g.Revoke(t.Context(), grant.ID, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if n := g.State().Len(); n != 0 {
		t.Errorf("%d grants are left", n)
	}
	if NewQuery(nil, nil).Match(g.State().Table, addr) {
		t.Error("the address is still in")
	}
	if end := g.fw.end(addr.String() + "/32 ssh"); !end.IsZero() {
		t.Errorf("a window is open until %v", end)
	}
}

// TestRevokeBesideExpired: a grant that is over and not swept yet holds no window,
// and is no reason for an error.
func TestRevokeBesideExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateTest(t, func(c *Config) { c.Observer = nil })
		prefix := netip.MustParsePrefix("203.0.113.9/32")
		if _, err := g.GrantByHand(t.Context(), "bob", "ssh", prefix, time.Second); err != nil {
			t.Fatal(err)
		}
		alice, err := g.GrantByHand(t.Context(), "alice", "ssh", prefix, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if ok, err := g.Revoke(t.Context(), alice.ID, "test"); !ok || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
		if n := len(g.fw.windows); n > 0 {
			t.Errorf("%d windows are open", n)
		}
	})
}
