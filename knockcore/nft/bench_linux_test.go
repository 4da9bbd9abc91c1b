// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// addresses makes windows for n addresses from the i-th on.
func addresses(i, n int) []knockcore.Window {
	list := make([]knockcore.Window, n)
	until := time.Now().Add(time.Hour)
	for j := range list {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|uint32(i+j)&0xffffff)
		list[j] = knockcore.Window{Prefix: knockcore.AddrPrefix(netip.AddrFrom4(a)), Service: "ssh", Expires: until}
	}
	return list
}

// benchEngine has live windows already, beyond the addresses that are opened.
func benchEngine(b *testing.B, live int) (*town, *Engine) {
	b.Helper()
	w := newTown(b)
	e := start(b, w.host, Config{}, service(b, "ssh", "tcp/22"))
	if live > 0 {
		open(b, e, addresses(1<<23, live)...)
	}
	return w, e
}

// BenchmarkOpen is from grant to window, one at a time.
func BenchmarkOpen(b *testing.B) {
	for _, live := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			_, e := benchEngine(b, live)
			var took []time.Duration
			i := 0
			for b.Loop() {
				w := addresses(i%100_000, 1)
				start := time.Now()
				open(b, e, w...)
				took = append(took, time.Since(start))
				i++
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// BenchmarkBurst is n calls that come at once.
func BenchmarkBurst(b *testing.B) {
	for _, n := range []int{64, 1024} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, e := benchEngine(b, 0)
			var took []time.Duration
			var mu sync.Mutex
			for b.Loop() {
				var wg sync.WaitGroup
				gate := make(chan struct{})
				for _, w := range addresses(0, n) {
					wg.Go(func() {
						<-gate
						start := time.Now()
						if err := e.Open(b.Context(), w); err != nil {
							b.Error(err)
						}
						d := time.Since(start)
						mu.Lock()
						took = append(took, d)
						mu.Unlock()
					})
				}
				close(gate)
				wg.Wait()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "windows/s")
		})
	}
}

// BenchmarkCall is one call with many windows that were not open.
func BenchmarkCall(b *testing.B) {
	for _, n := range []int{16, 256, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, e := benchEngine(b, 0)
			opened := 0
			for b.Loop() {
				open(b, e, addresses(opened, n)...)
				opened += n
			}
			b.ReportMetric(float64(opened)/b.Elapsed().Seconds(), "windows/s")
		})
	}
}

// BenchmarkList reads all windows back.
func BenchmarkList(b *testing.B) {
	for _, live := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			_, e := benchEngine(b, live)
			runtime.GC()
			runtime.ReadMemStats(&after)
			for b.Loop() {
				if got, err := e.List(b.Context()); err != nil || len(got) != live {
					b.Fatalf("%d windows, %v", len(got), err)
				}
			}
			b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/float64(live), "heapB/window")
		})
	}
}

// BenchmarkConnect is a TCP connection over veth: without a table, and through a
// window among few or many, which makes no difference. The median tells so also where
// others use the processors; the mean does not.
func BenchmarkConnect(b *testing.B) {
	for _, live := range []int{-1, 1, 100_000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			w := newTown(b)
			w.host.Echo("tcp", ":22")
			if live > 0 {
				e := start(b, w.host, Config{}, service(b, "ssh", "tcp/22"))
				open(b, e, addresses(0, live-1)...)
				open(b, e, window(knocker4, "ssh", time.Hour))
			}
			var took []time.Duration
			w.knocker.Do(func() {
				for b.Loop() {
					begun := time.Now()
					if s, err := netlab.ProbeHere("tcp", host4+":22", time.Second); s != netlab.Open {
						b.Errorf("%s %v", s, err)
					}
					took = append(took, time.Since(begun))
				}
			})
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "median-ns")
		})
	}
}

// BenchmarkSetup replaces the rules of a table that stands.
func BenchmarkSetup(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			_, e := benchEngine(b, 0)
			var services []*knockcore.Service
			for i := range n {
				services = append(services, service(b, fmt.Sprint("s", i), fmt.Sprintf("tcp/%d", 1000+i)))
			}
			others := slices.Clone(services) // else there is nothing to replace
			others[0] = service(b, "s0", "tcp/999")
			for b.Loop() {
				services, others = others, services
				if err := e.Setup(b.Context(), services); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
