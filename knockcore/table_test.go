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

func TestTable(t *testing.T) {
	table := NewTable()
	for _, g := range []*Grant{
		tableGrant("192.0.2.1/32", "ssh", "alice", time.Hour),
		tableGrant("192.0.2.1/32", "web", "bob", time.Hour),
		tableGrant("198.51.100.0/24", "ssh", "alice", time.Hour),
		tableGrant("2001:db8:1:2::/64", "ssh", "alice", time.Hour),
		tableGrant("2001:db8::1/128", "web", "bob", time.Hour),
		tableGrant("192.0.2.9/32", "ssh", "alice", -time.Second),
	} {
		table.put(g)
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
	table := NewTable()
	model := make(map[netip.Addr]*Grant)
	rng := rand.New(rand.NewPCG(1, 2))
	ssh := table.ServiceRef("ssh")
	for range 20_000 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(rng.IntN(4)), byte(rng.IntN(256))})
		if g := model[addr]; g != nil && rng.IntN(2) == 0 {
			table.remove(g)
			delete(model, addr)
		} else if g == nil {
			g = tableGrant(addr.String()+"/32", "ssh", "alice", time.Hour)
			table.put(g)
			model[addr] = g
		}
		probe := netip.AddrFrom4([4]byte{10, 0, byte(rng.IntN(4)), byte(rng.IntN(256))})
		if got := table.Allowed(probe, ssh, AnyRef, table.Now()); got != (model[probe] != nil) {
			t.Fatalf("%v: %v", probe, got)
		}
	}
}

func TestTableConcurrently(t *testing.T) {
	table := NewTable()
	stays := tableGrant("192.0.2.1/32", "ssh", "alice", time.Hour)
	table.put(stays)
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
		table.put(g)
		if i%3 == 0 {
			table.remove(g)
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
	table := NewTable()
	table.put(tableGrant("192.0.2.1/32", "ssh", "alice", time.Hour))
	table.put(tableGrant("2001:db8::/64", "ssh", "alice", time.Hour))
	query := NewQuery([]string{"ssh"}, []string{"alice"})
	hit, miss := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db9::1")
	query.Match(table, hit)
	if n := testing.AllocsPerRun(100, func() { query.Match(table, hit); query.Match(table, miss) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTableLookup(b *testing.B) {
	for _, n := range []int{1, 10_000, 1_000_000} {
		table := NewTable()
		for i := range n {
			table.put(&Grant{
				ID: GrantID{byte(i), byte(i >> 8), byte(i >> 16)}, Client: "alice", Service: "ssh",
				Prefix: AddrPrefix(addrOf(i)), Expires: time.Now().Add(time.Hour),
			})
		}
		ssh := table.ServiceRef("ssh")
		for _, hit := range []bool{true, false} {
			b.Run(fmt.Sprintf("grants=%d/hit=%v", n, hit), func(b *testing.B) {
				addrs := make([]netip.Addr, 4096)
				for i := range addrs {
					addrs[i] = addrOf(rand.IntN(n))
					if !hit {
						addrs[i] = addrOf(n + rand.IntN(n))
					}
				}
				now := table.Now()
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if table.Allowed(addrs[i&4095], ssh, AnyRef, now) != hit {
						b.Fatal("wrong answer")
					}
					i++
				}
			})
		}
	}
}
