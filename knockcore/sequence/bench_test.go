// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// full returns a Matcher that remembers 100,000 sources at the first stage.
func full(b *testing.B, doors ...string) (*Matcher, []Packet) {
	b.Helper()
	m := newTestMatcher(b, Config{Limits: Limits{Sources: 1 << 18, Memory: 256 << 20}}, doors...)
	rnd := rand.New(rand.NewPCG(9, 9))
	now := time.UnixMilli(1_750_000_000_000)
	list := make([]Packet, 100_000)
	for i := range list {
		list[i] = syn(ip4(rnd.Uint32()), 7000, rnd.Uint32(), now)
		m.Add(&list[i], nil)
	}
	return m, list
}

// BenchmarkFirstStep100k: 100,000 known sources hit the first port in turn.
func BenchmarkFirstStep100k(b *testing.B) {
	m, list := full(b, abc, other)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		p := &list[i%len(list)]
		p.Seq++
		m.Add(p, nil)
		i++
	}
	b.ReportMetric(float64(m.Len()), "sources")
}

// BenchmarkNewSource100k: every packet is of a source never seen, in a table
// that is full.
func BenchmarkNewSource100k(b *testing.B) {
	m, _ := full(b, abc, other)
	rnd := rand.New(rand.NewPCG(1, 9))
	p := syn(ip4(1), 7000, 1, time.UnixMilli(1_750_000_000_000))
	b.ReportAllocs()
	for b.Loop() {
		p.Src = ip4(rnd.Uint32())
		m.Add(&p, nil)
	}
	b.ReportMetric(float64(m.Evicted())/float64(b.N), "evicted/op")
}

// BenchmarkKnock100k: whole knocks of three steps by 100,000 sources in turn;
// the figure is that of an opening.
func BenchmarkKnock100k(b *testing.B) {
	m, list := full(b, abc, other)
	var matches []Match
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		p := list[i%len(list)]
		for _, port := range []uint16{7000, 8000, 9000} {
			p.DstPort = port
			p.Seq++
			matches = m.Add(&p, matches[:0])
		}
		if len(matches) != 1 {
			b.Fatal("not opened")
		}
		i++
	}
}

// BenchmarkForeignPort: packets to ports of no door.
func BenchmarkForeignPort(b *testing.B) {
	for _, strict := range []string{"", ";strict"} {
		b.Run("door"+strict, func(b *testing.B) {
			m, list := full(b, abc+strict)
			for i := range list {
				list[i].DstPort = 443
				list[i].Src = ip4(uint32(i) * 2654435761)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				m.Add(&list[i%len(list)], nil)
				i++
			}
		})
	}
}

// BenchmarkParallel: first steps on all processors.
func BenchmarkParallel(b *testing.B) {
	m, list := full(b, abc, other)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(len(list)); pb.Next(); i++ {
			p := list[i%len(list)]
			m.Add(&p, nil)
		}
	})
}

// BenchmarkManyDoors: a first step with a hundred other doors about.
func BenchmarkManyDoors(b *testing.B) {
	doors := []string{abc}
	for i := range 100 {
		doors = append(doors, fmt.Sprintf("D%d=%d,%d,%d,%d", i, 10000+i, 30000-i, 20000+i, 40000-i))
	}
	m, list := full(b, doors...)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m.Add(&list[i%len(list)], nil)
		i++
	}
}

// BenchmarkSweep: a whole sweep over 262,144 places with 100,000 sources.
func BenchmarkSweep(b *testing.B) {
	m, list := full(b, abc, other)
	b.ReportAllocs()
	for b.Loop() {
		m.Sweep(list[0].Time)
	}
}
