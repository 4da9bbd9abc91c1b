// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"
)

func tableGrant(prefix, service, client string, length time.Duration) *Grant {
	return &Grant{
		ID: NewGrantID(), Client: client, Service: service, Scope: ScopeAddress,
		Prefix: netip.MustParsePrefix(prefix), Expires: time.Now().Add(length),
	}
}

// testRegistry has room for a million grants.
type testRegistry struct {
	testing.TB
	*registry
}

func newTestRegistry(tb testing.TB) *testRegistry {
	return &testRegistry{tb, newRegistry(NewTable(), 1<<20)}
}

func (r *testRegistry) put(g *Grant) {
	r.Helper()
	if _, err := r.registry.put(g, bounds{}); err != nil {
		r.Fatal(err)
	}
}

func TestTable(t *testing.T) {
	reg := newTestRegistry(t)
	table := reg.table
	for _, g := range []*Grant{
		tableGrant("192.0.2.1/32", "ssh", "alice", time.Hour),
		tableGrant("192.0.2.1/32", "web", "bob", time.Hour),
		tableGrant("198.51.100.0/24", "ssh", "alice", time.Hour),
		tableGrant("2001:db8:1:2::/64", "ssh", "alice", time.Hour),
		tableGrant("2001:db8::1/128", "web", "bob", time.Hour),
		tableGrant("192.0.2.9/32", "ssh", "alice", -time.Second),
	} {
		reg.put(g)
	}
	for _, c := range []struct {
		addr, service, client string
		want                  bool
	}{
		{"192.0.2.1", "ssh", "", true},
		{"::ffff:192.0.2.1", "ssh", "", true},
		{"192.0.2.1", "", "", true},
		{"192.0.2.1", "ssh", "bob", false},
		{"192.0.2.1", "web", "bob", true},
		{"192.0.2.1", "ftp", "", false},
		{"192.0.2.2", "", "", false},
		{"198.51.100.77", "ssh", "", true},
		{"198.51.101.1", "ssh", "", false},
		{"2001:db8:1:2:3:4:5:6", "ssh", "", true},
		{"2001:db8:1:2:3:4:5:6%eth0", "ssh", "alice", true},
		{"2001:db8:1:3::1", "ssh", "", false},
		{"2001:db8::1", "web", "", true},
		{"192.0.2.9", "ssh", "", false},
	} {
		var services, clients []string
		if c.service != "" {
			services = []string{c.service}
		}
		if c.client != "" {
			clients = []string{c.client}
		}
		if got := NewQuery(services, clients).Match(table, netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s for service %q by client %q: %v", c.addr, c.service, c.client, got)
		}
	}
	if NewQuery(nil, nil).Match(table, netip.Addr{}) {
		t.Error("the invalid address is in")
	}
}

func TestTableAgainstMap(t *testing.T) {
	reg := newTestRegistry(t)
	table := reg.table
	model := make(map[netip.Addr]*Grant)
	rng := rand.New(rand.NewPCG(1, 2))
	ssh := NewQuery([]string{"ssh"}, nil)
	for range 20_000 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(rng.IntN(4)), byte(rng.IntN(256))})
		if g := model[addr]; g != nil && rng.IntN(2) == 0 {
			reg.remove(g.ID)
			delete(model, addr)
		} else if g == nil {
			g = tableGrant(addr.String()+"/32", "ssh", "alice", time.Hour)
			reg.put(g)
			model[addr] = g
		}
		probe := netip.AddrFrom4([4]byte{10, 0, byte(rng.IntN(4)), byte(rng.IntN(256))})
		if got := ssh.Match(table, probe); got != (model[probe] != nil) {
			t.Fatalf("%v: %v", probe, got)
		}
	}
}

func TestTableConcurrently(t *testing.T) {
	reg := newTestRegistry(t)
	table := reg.table
	stays := tableGrant("192.0.2.1/32", "ssh", "alice", time.Hour)
	reg.put(stays)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			query := NewQuery([]string{"ssh"}, nil)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if !query.Match(table, stays.Prefix.Addr()) {
					t.Error("a standing grant was not seen")
					return
				}
			}
		})
	}
	for i := range 20_000 {
		g := tableGrant(netip.PrefixFrom(addrOf(i), 32).String(), "ssh", "alice", time.Hour)
		reg.put(g)
		if i%3 == 0 {
			reg.remove(g.ID)
		}
	}
	close(stop)
	wg.Wait()
}

func addrOf(i int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(i)+10<<24)
	return netip.AddrFrom4(b)
}

func TestLookupDoesNotAllocate(t *testing.T) {
	reg := newTestRegistry(t)
	table := reg.table
	reg.put(tableGrant("192.0.2.1/32", "ssh", "alice", time.Hour))
	reg.put(tableGrant("2001:db8::/64", "ssh", "alice", time.Hour))
	query := NewQuery([]string{"ssh"}, []string{"alice"})
	hit, miss := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db9::1")
	query.Match(table, hit)
	if n := testing.AllocsPerRun(100, func() { query.Match(table, hit); query.Match(table, miss) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkTableLookup looks up random addresses that have one of n grants, and
// others. They are computed, so that nothing else is read from memory.
func BenchmarkTableLookup(b *testing.B) {
	for _, n := range []int{1, 10_000, 1_000_000} {
		reg := newTestRegistry(b)
		for i := range n {
			reg.put(&Grant{
				ID: NewGrantID(), Client: "alice", Service: "ssh", Scope: ScopeAddress,
				Prefix: AddrPrefix(addrOf(i)), Expires: time.Now().Add(time.Hour),
			})
		}
		ssh := NewQuery([]string{"ssh"}, nil)
		for _, hit := range []bool{true, false} {
			b.Run(fmt.Sprintf("grants=%d/hit=%v", n, hit), func(b *testing.B) {
				rng, first := rand.New(rand.NewPCG(1, 2)), 0
				if !hit {
					first = n
				}
				b.ReportAllocs()
				for b.Loop() {
					if ssh.Match(reg.table, addrOf(first+rng.IntN(n))) != hit {
						b.Fatal("wrong answer")
					}
				}
			})
		}
	}
}
