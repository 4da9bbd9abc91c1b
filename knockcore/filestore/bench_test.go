// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// benchOptions are those of real use: real fsyncs, real segments, on the disk
// that TMPDIR is on.
func benchOptions(b *testing.B) Options {
	return Options{Dir: filepath.Join(b.TempDir(), "state"), Log: func(level, msg string, err error) {
		if level != "info" {
			b.Error(level, msg, err)
		}
	}}
}

// nonces draws nonces quickly: the figures are those of the store.
type nonces struct {
	next    atomic.Uint64
	clients [50]string
}

func newNonces() *nonces {
	n := new(nonces)
	for i := range n.clients {
		n.clients[i] = fmt.Sprint("client", i)
	}
	return n
}

func (n *nonces) draw(now time.Time) (x knockcore.Nonce) {
	i := n.next.Add(1)
	binary.LittleEndian.PutUint64(x.Key[:], i*0x9e3779b97f4a7c15)
	x.Client = n.clients[i%50]
	x.Time = now
	return x
}

// benchWindow is short, so that the guard has room for whatever the benchmark
// spends.
const benchWindow = 10 * time.Millisecond

// reportCPU reports the processor time of an operation, with that of the
// goroutines in the background.
func reportCPU(b *testing.B) func() {
	begin := cpuTime()
	return func() { b.ReportMetric(float64(cpuTime()-begin)/float64(b.N), "cpu-ns/op") }
}

func BenchmarkSpend(b *testing.B) {
	run := func(b *testing.B, store knockcore.Store) {
		b.ReportAllocs()
		defer reportCPU(b)()
		n := newNonces()
		ctx := context.Background()
		for b.Loop() {
			now := time.Now()
			if err := store.Spend(ctx, n.draw(now), now, benchWindow); err != nil && knockcore.ReasonOf(err) != knockcore.ReasonReplayFull {
				b.Fatal(err)
			}
		}
	}
	parallel := func(b *testing.B, store knockcore.Store) {
		b.ReportAllocs()
		defer reportCPU(b)()
		n := newNonces()
		ctx := context.Background()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				now := time.Now()
				if err := store.Spend(ctx, n.draw(now), now, benchWindow); err != nil && knockcore.ReasonOf(err) != knockcore.ReasonReplayFull {
					b.Error(err)
				}
			}
		})
	}
	for _, c := range []struct {
		name string
		run  func(*testing.B, knockcore.Store)
	}{{"serial", run}, {"parallel", parallel}} {
		b.Run("memory/"+c.name, func(b *testing.B) { c.run(b, knockcore.NewMemoryStore(0)) })
		b.Run("file/"+c.name, func(b *testing.B) {
			s := mustOpen(b, benchOptions(b))
			c.run(b, s)
			mustClose(b, s)
		})
	}
}

// BenchmarkSpendPaced spends 2,000 times a second, which is what a server does
// that is knocked at a lot, and reports how long a spend takes; with 100,000
// grants kept, of which snapshots are written all the time, or never.
func BenchmarkSpendPaced(b *testing.B) {
	for _, snapshots := range []bool{false, true} {
		b.Run(fmt.Sprint("snapshots=", snapshots), func(b *testing.B) {
			b.ReportAllocs()
			s := mustOpen(b, benchOptions(b))
			saveGrants(b, s, 0, 100_000)
			var stop atomic.Bool
			done := make(chan struct{})
			go func() {
				defer close(done)
				for snapshots && !stop.Load() {
					s.mu.Lock()
					s.journalBytes = 1 << 40 // due
					s.mu.Unlock()
					notify(s.work)
					time.Sleep(10 * time.Millisecond)
				}
			}()
			n := newNonces()
			ctx := context.Background()
			var took []time.Duration
			before := s.Stats()
			next := time.Now()
			for b.Loop() {
				next = next.Add(500 * time.Microsecond)
				time.Sleep(time.Until(next))
				now := time.Now()
				if err := s.Spend(ctx, n.draw(now), now, benchWindow); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(now))
			}
			stop.Store(true)
			<-done
			after := s.Stats()
			slices.Sort(took)
			at := func(q float64) float64 {
				return float64(took[min(len(took)-1, int(q*float64(len(took))))].Nanoseconds()) / 1000
			}
			b.ReportMetric(at(0.5), "p50-µs")
			b.ReportMetric(at(0.99), "p99-µs")
			b.ReportMetric(at(0.999), "p99.9-µs")
			b.ReportMetric(at(1), "max-µs")
			b.ReportMetric(float64(after.Snapshots-before.Snapshots), "snapshots")
			b.ReportMetric(float64(after.SnapshotTook.Milliseconds()), "snapshot-ms")
			b.ReportMetric(float64(after.SnapshotBytes)/1e6, "snapshot-MB")
			b.ReportMetric(float64(after.Waits-before.Waits), "waits")
			mustClose(b, s)
		})
	}
}

// BenchmarkSpendAfterPause is the spend that waits for the disk.
func BenchmarkSpendAfterPause(b *testing.B) {
	b.ReportAllocs()
	s := mustOpen(b, benchOptions(b))
	n := newNonces()
	ctx := context.Background()
	now := time.Now()
	for b.Loop() {
		now = now.Add(time.Minute)
		if err := s.Spend(ctx, n.draw(now), now, benchWindow); err != nil {
			b.Fatal(err)
		}
	}
	mustClose(b, s)
}

// BenchmarkSaveGrant keeps a grant and strikes it out again.
func BenchmarkSaveGrant(b *testing.B) {
	b.ReportAllocs()
	defer reportCPU(b)()
	s := mustOpen(b, benchOptions(b))
	g := newGrant(1, time.Hour, time.Now())
	ctx := context.Background()
	for b.Loop() {
		if err := s.SaveGrant(ctx, g); err != nil {
			b.Fatal(err)
		}
		if err := s.DeleteGrant(ctx, g.ID); err != nil {
			b.Fatal(err)
		}
	}
	mustClose(b, s)
}

// BenchmarkOpen opens a store of 100,000 grants and a full guard.
func BenchmarkOpen(b *testing.B) {
	b.ReportAllocs()
	o := benchOptions(b)
	s := mustOpen(b, o)
	saveGrants(b, s, 0, 100_000)
	n := newNonces()
	now := time.Now()
	for range knockcore.DefaultReplayCapacity {
		now = now.Add(100 * time.Microsecond)
		if err := s.Spend(context.Background(), n.draw(now), now, benchWindow); err != nil {
			b.Fatal(err)
		}
	}
	mustClose(b, s)
	for b.Loop() {
		s := mustOpen(b, o)
		mustClose(b, s)
	}
}
