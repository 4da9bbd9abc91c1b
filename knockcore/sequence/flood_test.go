// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func syn(src netip.Addr, port uint16, key uint32, at time.Time) Packet {
	return Packet{
		Src: src, Dst: netip.MustParseAddr("203.0.113.1"), Protocol: knockcore.TCP,
		SrcPort: uint16(key), DstPort: port, TCPFlags: SYN, Seq: key | 1, Time: at,
	}
}

func ip4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func newTestMatcher(t testing.TB, config Config, doors ...string) *Matcher {
	t.Helper()
	var list []*Door
	for _, d := range doors {
		list = append(list, testDoor(t, d))
	}
	m, err := NewMatcher(list, config)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// flood lets one honest source knock 20 times with delay between its steps,
// while others send rate packets a second, and returns how often it was let in.
func flood(t *testing.T, m *Matcher, honest netip.Addr, delay time.Duration, rate int, other func(n int) (netip.Addr, uint16)) int {
	t.Helper()
	now := time.UnixMilli(1_750_000_000_000)
	opened, n := 0, 0
	send := func(src netip.Addr, port uint16) {
		n++
		p := syn(src, port, uint32(n)*2654435761, now)
		for _, match := range m.Add(&p, nil) {
			if match.Source == honest {
				opened++
			}
		}
	}
	pause := func(d time.Duration) {
		step := time.Second / time.Duration(rate)
		for end := now.Add(d); now.Before(end); now = now.Add(step) {
			send(other(n))
		}
	}
	pause(2 * time.Second)
	for range 20 {
		for _, port := range []uint16{7000, 8000, 9000} {
			send(honest, port)
			pause(delay)
		}
	}
	return opened
}

func TestFloods(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	fixed := make([]netip.Addr, 100_000/testScale)
	for i := range fixed {
		fixed[i] = ip4(rnd.Uint32())
	}
	honest := netip.MustParseAddr("192.0.2.1")
	honest6 := netip.MustParseAddr("2001:db8::1")
	for _, test := range []struct {
		name   string
		honest netip.Addr
		delay  time.Duration
		rate   int
		other  func(n int) (netip.Addr, uint16)
	}{
		{"100,000 spoofed sources on the first port", honest, 50 * time.Millisecond, 100_000, func(n int) (netip.Addr, uint16) {
			return fixed[n%len(fixed)], 7000
		}},
		{"the same, slow knock", honest, 200 * time.Millisecond, 100_000, func(n int) (netip.Addr, uint16) {
			return fixed[n%len(fixed)], 7000
		}},
		{"ever new spoofed sources, 400,000 a second", honest, 50 * time.Millisecond, 400_000, func(int) (netip.Addr, uint16) {
			return ip4(rnd.Uint32()), 7000
		}},
		{"on the first and the second port", honest, 50 * time.Millisecond, 100_000, func(n int) (netip.Addr, uint16) {
			return fixed[n/2%len(fixed)], []uint16{7000, 8000}[n%2]
		}},
		{"the rest of the /24", honest, 100 * time.Millisecond, 100_000, func(n int) (netip.Addr, uint16) {
			a := honest.As4()
			a[3] = byte(2 + n%254)
			return netip.AddrFrom4(a), 7000
		}},
		{"one foreign /64", honest6, 100 * time.Millisecond, 100_000, func(int) (netip.Addr, uint16) {
			a := netip.MustParseAddr("2001:db8:ffff:1::").As16()
			for i := 8; i < 16; i++ {
				a[i] = byte(rnd.Uint32())
			}
			return netip.AddrFrom16(a), 7000
		}},
		{"the honest one's own /64, slowly", honest6, 100 * time.Millisecond, 500, func(int) (netip.Addr, uint16) {
			a := honest6.As16()
			for i := 8; i < 16; i++ {
				a[i] = byte(rnd.Uint32())
			}
			return netip.AddrFrom16(a), 7000
		}},
		{"one slow host, 20 a second", honest, 50 * time.Millisecond, 20, func(int) (netip.Addr, uint16) {
			return netip.MustParseAddr("192.0.2.99"), 7000
		}},
		{"one slow host behind the same address", honest, 50 * time.Millisecond, 20, func(int) (netip.Addr, uint16) {
			return honest, 7000
		}},
		{"one quick host behind the same address", honest, 50 * time.Millisecond, 10_000, func(int) (netip.Addr, uint16) {
			return honest, 7000
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			// A smaller table, and as much less of a flood, is the same test.
			m := newTestMatcher(t, Config{Limits: Limits{Sources: DefaultSources / testScale}}, abc, other)
			if got := flood(t, m, test.honest, test.delay, max(20, test.rate/testScale), test.other); got != 20 {
				t.Errorf("%d of 20 honest knocks recognised", got)
			}
			if m.Len() > m.Capacity() {
				t.Errorf("%d records of %d", m.Len(), m.Capacity())
			}
		})
	}
}

// TestShares: neither newcomers nor the advanced take all places of a set.
func TestShares(t *testing.T) {
	m := newTestMatcher(t, Config{Limits: Limits{Sources: ways}}, "A=1,2,3,4")
	now := time.UnixMilli(1_750_000_000_000)
	seq := uint32(0)
	send := func(src uint32, ports ...uint16) (opened int) {
		for _, port := range ports {
			seq++
			now = now.Add(time.Millisecond)
			p := syn(ip4(src), port, seq, now)
			opened += len(m.Add(&p, nil))
		}
		return opened
	}
	for i := range uint32(100) {
		send(i, 1, 2)
	}
	// The liars know two steps and go on while seven honest ones knock.
	for i := range uint32(7) {
		send(1000+i, 1)
	}
	for i := range uint32(8) {
		send(2000+i, 1, 2)
	}
	for i := range uint32(7) {
		send(1000+i, 2)
	}
	for i := range uint32(6) {
		send(1000+i, 3)
	}
	for i := range uint32(100) {
		send(3000+i, 1, 2)
	}
	opened := 0
	for i := range uint32(6) {
		opened += send(1000+i, 4)
	}
	if opened != 6 {
		t.Errorf("%d of 6 opened", opened)
	}
}

// TestPrefixBound: one /64 or /24 has 256 places at most, and room for them all.
func TestPrefixBound(t *testing.T) {
	m := newTestMatcher(t, Config{}, abc)
	rnd := rand.New(rand.NewPCG(3, 3))
	now := time.UnixMilli(1_750_000_000_000)
	for i := range uint32(20_000) {
		a := netip.MustParseAddr("2001:db8::").As16()
		for j := 8; j < 16; j++ {
			a[j] = byte(rnd.Uint32())
		}
		p := syn(netip.AddrFrom16(a), 7000, i, now)
		m.Add(&p, nil)
	}
	if m.Len() != ways*window {
		t.Errorf("a /64 has %d places", m.Len())
	}
	m = newTestMatcher(t, Config{}, abc)
	for i := range uint32(256) {
		p := syn(ip4(0xc0000200|i), 7000, i, now)
		m.Add(&p, nil)
	}
	if m.Len() != 256 || m.Evicted() != 0 {
		t.Errorf("a /24 has %d places", m.Len())
	}
}

// TestMillionSources: the tables are as large as they were, however many come.
func TestMillionSources(t *testing.T) {
	m := newTestMatcher(t, Config{Limits: Limits{Sources: 1 << 16 / testScale}}, abc, other, "C=1,2,3,4,5")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	rnd := rand.New(rand.NewPCG(7, 8))
	now := time.UnixMilli(1_750_000_000_000)
	for i := range uint32(1_000_000 / testScale) {
		a := [16]byte{0: 0x20, 1: 0x01}
		for j := 2; j < 16; j += 7 {
			a[j], a[j+1] = byte(rnd.Uint32()), byte(rnd.Uint32())
		}
		src := netip.AddrFrom16(a)
		if i%2 == 0 {
			src = ip4(rnd.Uint32())
		}
		p := syn(src, []uint16{7000, 12345, 1}[i%3], i, now.Add(time.Duration(i)*time.Microsecond))
		if len(m.Add(&p, nil)) > 0 {
			t.Fatal("opened")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if m.Len() > m.Capacity() || m.Len() < m.Capacity()*99/100 {
		t.Errorf("%d records of %d", m.Len(), m.Capacity())
	}
	if used := count(m.table); used != m.Len() {
		t.Errorf("Len is %d, but %d records are used", m.Len(), used)
	}
	if m.Evicted() < 900_000/testScale {
		t.Errorf("%d evicted", m.Evicted())
	}
	if left := m.Sweep(now.Add(time.Hour)); left != 0 || count(m.table) != 0 {
		t.Errorf("%d records left after an hour", left)
	}
}

func count(t *table) (used int) {
	for i := range t.records {
		if t.records[i].used {
			used++
		}
	}
	return used
}

func TestNoAllocation(t *testing.T) {
	if testScale > 1 {
		t.Skip("the race detector allocates")
	}
	m := newTestMatcher(t, Config{}, abc, other, "S=1,2,3;strict", "R=7000,7000,7001")
	now := time.UnixMilli(1_750_000_000_000)
	n := uint32(0)
	if allocs := testing.AllocsPerRun(20_000, func() {
		n++
		p := syn(ip4(n*2654435761), []uint16{7000, 8000, 443, 1, 23456}[n%5], n, now)
		m.Add(&p, nil)
		p.DstPort = 8000
		m.Add(&p, nil)
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
