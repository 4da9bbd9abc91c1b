// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// lookup asks, in this process, whether an address is in: of many grants, beside a
// Go map.
func lookup(ctx context.Context, o options, r *report) error {
	n := o.some(1_000_000)
	var heap [3]uint64
	heap[0] = heapInUse()
	gate, err := gateFor([]*knockcore.Client{benchClient("bench")}, n+1)
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := gate.GrantByHand(ctx, "bench", "bench", knockcore.AddrPrefix(address(i)), time.Hour); err != nil {
			return err
		}
	}
	heap[1] = heapInUse()
	plain := make(map[netip.Addr]knockcore.Tick)
	for i := range n {
		plain[address(i)] = 1
	}
	heap[2] = heapInUse()

	table := gate.State().Table
	asked := make([]netip.Addr, 1<<16)
	for i := range asked {
		asked[i] = address(rand.IntN(n))
	}
	query, missed := knockcore.NewQuery([]string{"bench"}, nil), 0
	lookups := o.some(2_000_000)
	nanoseconds := func(ask func(netip.Addr) bool) func(context.Context) ([]float64, error) {
		return func(context.Context) ([]float64, error) {
			begin := time.Now()
			for i := range lookups {
				if !ask(asked[i%len(asked)]) {
					missed++
				}
			}
			return []float64{float64(time.Since(begin).Nanoseconds()) / float64(lookups)}, nil
		}
	}
	if err := r.compare(ctx, o.rounds, figure(float64(n))+" grants: look-up", []quantity{{unit: "ns", less: true}},
		subject{"matcher `knocked`", map[int]float64{0: 50}, nanoseconds(func(a netip.Addr) bool { return query.Match(table, a) })},
		subject{"Go map", nil, nanoseconds(func(a netip.Addr) bool { _, in := plain[a]; return in })},
	); err != nil {
		return err
	}
	runtime.KeepAlive(gate)
	size := func(i int) func(context.Context) ([]float64, error) {
		return func(context.Context) ([]float64, error) {
			return []float64{float64(heap[i+1]-heap[i]) / float64(n)}, nil
		}
	}
	return r.compare(ctx, 1, figure(float64(n))+" grants: memory of each", []quantity{{unit: "bytes", less: true}},
		subject{"state of the gatekeeper, all of it", map[int]float64{0: 200}, size(0)}, subject{"Go map", nil, size(1)})
}

// heapInUse is what is left after collecting garbage.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// benchClient is a client of the service "bench".
func benchClient(id string) *knockcore.Client {
	return &knockcore.Client{
		ID: id, Services: []string{"bench"}, Secrets: []knockcore.Secret{knockcore.NewSecret([]byte(secret + " for " + id))},
	}
}

// gateFor is a gatekeeper with a service on port 22 and its state in memory.
func gateFor(clients []*knockcore.Client, grants int) (*knockcore.Gatekeeper, error) {
	ring, err := knockcore.NewKeyring(clients)
	if err != nil {
		return nil, err
	}
	service := &knockcore.Service{
		Name: "bench", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 22, High: 22}}, OpenFor: time.Hour, MaxOpen: time.Hour,
	}
	return knockcore.NewGatekeeper(
		knockcore.Config{Keyring: ring, Services: []*knockcore.Service{service}, Limits: knockcore.NewLimiter(knockcore.LimitConfig{})},
		knockcore.NewState(knockcore.NewMemoryStore(1<<20), grants))
}
