// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/redislab"
)

func benchStore(b *testing.B, name, address string) *Store {
	b.Helper()
	s, err := Open(Options{Addresses: []string{address}, Prefix: testPrefix, Node: name, Capacity: 1 << 22})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func benchGate(b *testing.B, store knockcore.Store) *knockcore.Gatekeeper {
	b.Helper()
	ring, _ := knockcore.NewKeyring([]*knockcore.Client{{ID: "alice", AllServices: true}, {ID: "bob", AllServices: true}})
	ports, _ := knockcore.ParsePortRange("tcp/22")
	g, err := knockcore.NewGatekeeper(knockcore.Config{
		Keyring: ring, Services: []*knockcore.Service{{Name: "ssh", Ports: []knockcore.PortRange{ports}, OpenFor: time.Hour}},
	}, knockcore.NewState(store, 0))
	if err != nil {
		b.Fatal(err)
	}
	g.Activate(b.Context())
	return g
}

var benchFrames atomic.Uint64

func benchFrame(g *knockcore.Gatekeeper) knockcore.Knock {
	n := benchFrames.Add(1)
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x0a000000+uint32(n%(1<<20)))
	return knockcore.Knock{
		Client: g.Keyring().Client("alice"), Source: netip.AddrFrom4(a), Services: []string{"ssh"}, Time: time.Now(),
		Replay: knockcore.NewReplayKey(knockcore.ReplayUDP, "alice", binary.BigEndian.AppendUint64(nil, n)),
	}
}

// BenchmarkAdmit: TCP frames, which spend a nonce, and datagrams, which make a
// grant, too; 64 at a time.
func BenchmarkAdmit(b *testing.B) {
	for _, method := range []knockcore.Method{knockcore.MethodEnvelopeV2, knockcore.MethodUDP} {
		for _, kind := range []string{"memory", "redis"} {
			b.Run(fmt.Sprintf("%v/%s", method, kind), func(b *testing.B) {
				var store knockcore.Store = knockcore.NewMemoryStore(1 << 22)
				if kind == "redis" {
					server := redislab.Start(b)
					server.Forgive(testPrefix)
					store = benchStore(b, "a", server.Address)
				}
				g := benchGate(b, store)
				b.SetParallelism(32)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						k := benchFrame(g)
						k.Method = method
						if _, err := g.Admit(context.Background(), k); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "admissions/s")
			})
		}
	}
}

// BenchmarkKnockTraffic: what a knock costs on the wire, with three nodes that
// follow.
func BenchmarkKnockTraffic(b *testing.B) {
	for _, method := range []knockcore.Method{knockcore.MethodEnvelopeV2, knockcore.MethodUDP} {
		b.Run(method.String(), func(b *testing.B) {
			server := redislab.Start(b)
			server.Forgive(testPrefix)
			own, others := redislab.NewProxy(b, server.Address), redislab.NewProxy(b, server.Address)
			g := benchGate(b, benchStore(b, "a", own.Address))
			for _, name := range []string{"b", "c"} {
				benchGate(b, benchStore(b, name, others.Address))
			}
			bytes, writes, followed := own.Bytes.Load(), own.Writes.Load(), others.Bytes.Load()
			for b.Loop() {
				k := benchFrame(g)
				k.Method = method
				if _, err := g.Admit(context.Background(), k); err != nil {
					b.Fatal(err)
				}
			}
			n := float64(b.N)
			b.ReportMetric(float64(own.Bytes.Load()-bytes)/n, "bytes/knock")
			b.ReportMetric(float64(own.Writes.Load()-writes)/n, "pieces/knock")
			b.ReportMetric(float64(others.Bytes.Load()-followed)/n/2, "bytes/knock/follower")
		})
	}
}

// BenchmarkJoin: a node joins a fleet with 100,000 grants.
func BenchmarkJoin(b *testing.B) {
	const grants = 100_000
	server := redislab.Start(b)
	server.Forgive(testPrefix)
	first := benchStore(b, "a", server.Address)
	before := server.Info("used_memory")
	g := benchGate(b, first)
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for n := w; n < grants; n += 64 {
				var a [4]byte
				binary.BigEndian.PutUint32(a[:], 0x0a000000+uint32(n))
				if _, err := g.GrantByHand(context.Background(), "alice", "ssh", knockcore.AddrPrefix(netip.AddrFrom4(a)), time.Hour); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	var was, is float64
	_, _ = fmt.Sscan(before, &was)
	_, _ = fmt.Sscan(server.Info("used_memory"), &is)
	for b.Loop() {
		joined := benchGate(b, benchStore(b, "b", server.Address))
		for joined.State().Len() < grants {
			time.Sleep(time.Millisecond)
		}
	}
	b.ReportMetric((is-was)/grants, "redis-bytes/grant")
}
