// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"runtime"
	"testing"
	"time"
)

// TestRecord: a grant comes back from its record as it went in, readings of the
// monotonic clock included.
func TestRecord(t *testing.T) {
	now, past := time.Now(), time.Unix(1_700_000_000, 5)
	addr, other := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")
	common := Grant{
		ID: NewGrantID(), Client: "alice", Service: "ssh", Method: MethodUDP, Scope: ScopeAddress,
		Prefix: AddrPrefix(addr), Source: addr, Made: now, Expires: now.Add(time.Hour), Uses: -1,
	}
	set := newGrantSet(newHolders())
	for name, change := range map[string]func(*Grant){
		"common":          func(*Grant) {},
		"prefix":          func(g *Grant) { g.Prefix = netip.MustParsePrefix("203.0.113.0/24") },
		"IPv6":            func(g *Grant) { g.Prefix, g.Source = AddrPrefix(other), other },
		"IPv6 prefix":     func(g *Grant) { g.Prefix, g.Source = netip.MustParsePrefix("2001:db8::/64"), addr },
		"everything":      func(g *Grant) { g.Prefix = netip.MustParsePrefix("::/0") },
		"session":         func(g *Grant) { g.Scope, g.Session, g.Uses = ScopeSession, []byte("0123456789abcdef"), 3 },
		"many uses":       func(g *Grant) { g.Uses = 1 << 30 },
		"device":          func(g *Grant) { g.Session = []byte("device:abc") },
		"no source":       func(g *Grant) { g.Source = netip.Addr{} },
		"restored":        func(g *Grant) { g.Made, g.Expires = past, past.Add(time.Hour) },
		"half restored":   func(g *Grant) { g.Made = past },
		"UTC":             func(g *Grant) { g.Made, g.Expires = past.UTC(), past.Add(time.Hour).UTC() },
		"time not known":  func(g *Grant) { g.Made = time.Time{} },
		"without an end":  func(g *Grant) { g.Expires = time.Time{} },
		"zero everywhere": func(g *Grant) { *g = Grant{ID: g.ID, Prefix: g.Prefix} },
	} {
		want := common
		change(&want)
		got := set.grant(set.put(&want))
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v came back as %+v", name, want, *got)
		}
		if !got.equal(&want) {
			t.Errorf("%s: a grant does not equal itself", name)
		}
	}
	if set.len() != 1 {
		t.Errorf("%d grants of one ID", set.len())
	}
}

// TestRegistryAgainstModel makes, renews, moves and removes grants at random, of
// addresses and prefixes and of both scopes, and asks all indexes about them.
func TestRegistryAgainstModel(t *testing.T) {
	reg := newTestRegistry(t)
	rng := rand.New(rand.NewPCG(3, 4))
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	prefixes := []string{
		"192.0.2.1/32", "192.0.2.2/32", "192.0.2.0/24", "192.0.0.0/16", "0.0.0.0/0",
		"2001:db8::1/128", "2001:db8::/64", "2001:db8::/120", "::/64", "::/0", "::/128",
	}
	probes := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.3.1", "10.0.0.1", "2001:db8::1", "2001:db8::2", "2001:db8::1:0", "::", "::1", "::c000:201"}
	model := make(map[GrantID]*Grant)
	for step := range 20_000 {
		switch rng.IntN(3) {
		case 0:
			for id := range model {
				if got := reg.remove(id); got == nil || !got.equal(model[id]) {
					t.Fatalf("step %d: removed %+v, not %+v", step, got, model[id])
				}
				delete(model, id)
				break
			}
		default:
			g := tableGrant(pick(prefixes...), pick("ssh", "web"), pick("alice", "bob"), time.Hour)
			if rng.IntN(4) == 0 {
				g.Scope, g.Uses = ScopeSession, 1
			}
			if rng.IntN(8) == 0 { // the same ID for something else
				for id, known := range model {
					if known.Scope == g.Scope {
						g.ID = id
						break
					}
				}
			}
			before := len(model)
			for id, known := range model {
				if g.Scope == ScopeAddress && known.Scope == ScopeAddress && known.target() == g.target() && known.Client == g.Client {
					g.ID = id
				}
			}
			former, err := reg.registry.put(g, bounds{})
			if err != nil {
				if ReasonOf(err) == ReasonLimited && g.Scope == ScopeSession {
					continue
				}
				t.Fatal(err)
			}
			if known := model[g.ID]; (known == nil) != (former == nil) || known != nil && !former.equal(known) {
				t.Fatalf("step %d: in place of %+v, not of %+v", step, former, known)
			}
			kept := *g
			model[g.ID] = &kept
			if after := reg.len(); after != len(model) || after < before {
				t.Fatalf("step %d: %d grants instead of %d", step, after, len(model))
			}
		}
		addr, service, client := netip.MustParseAddr(pick(probes...)), pick("ssh", "web"), pick("alice", "bob")
		target := target{netip.MustParsePrefix(pick(prefixes...)), service}
		var allowed, held bool
		var end time.Time
		for _, g := range model {
			covers := g.Service == service && g.Prefix.Contains(addr)
			held = held || covers
			allowed = allowed || covers && g.Scope == ScopeAddress && g.Client == client
			if g.target() == target && g.Expires.After(end) {
				end = g.Expires
			}
		}
		if got := NewQuery([]string{"other", service}, []string{client}).Match(reg.table, addr); got != allowed {
			t.Fatalf("step %d: %v by %s for %s: %v", step, addr, client, service, got)
		}
		if got := reg.holds(service, addr, reg.table.Now()); got != held {
			t.Fatalf("step %d: %v holds %s: %v", step, addr, service, got)
		}
		if got := reg.windowEnd(target); !got.Equal(end) {
			t.Fatalf("step %d: %v is open until %v, not %v", step, target, got, end)
		}
	}
	for id := range model {
		reg.remove(id)
	}
	if reg.len() != 0 || len(reg.expiry) != 0 || len(reg.sessions) != 0 || len(*reg.table.lengths.Load()) != 1 || (*reg.table.lengths.Load())[0].slots.live != 0 {
		t.Error("something is left of grants that were removed")
	}
}

// BenchmarkRegistryPut enters a grant of one address after the other, and tells what
// each of them occupies in the end.
func BenchmarkRegistryPut(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	reg := newTestRegistry(b)
	reg.limit = 1 << 30
	made := time.Now()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		addr := addrOf(n)
		reg.put(&Grant{
			ID: NewGrantID(), Client: "alice", Service: "ssh", Scope: ScopeAddress, Prefix: AddrPrefix(addr), Source: addr,
			Made: made, Expires: made.Add(time.Hour), Uses: -1,
		})
		n++
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/grant")
	runtime.KeepAlive(reg)
}
