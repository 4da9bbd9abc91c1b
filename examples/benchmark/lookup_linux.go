// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// lookup asks, in this process, whether an address is in: of many grants, beside a
// Go map, and beside one read of an array that is as great as the table.
func lookup(ctx context.Context, o options, r *report) error {
	n := o.some(1_000_000)
	var heap [4]uint64
	heap[0] = heapInUse()
	gate, err := grantedTo(ctx, n, forgetful{knockcore.NewMemoryStore(1)})
	if err != nil {
		return err
	}
	heap[1] = heapInUse()
	kept, err := grantedTo(ctx, n, knockcore.NewMemoryStore(1))
	if err != nil {
		return err
	}
	heap[2] = heapInUse()
	plain := make(map[netip.Addr]knockcore.Tick)
	for i := range n {
		plain[address(i)] = 1
	}
	heap[3] = heapInUse()
	runtime.KeepAlive(kept)

	table, query := gate.State().Table, knockcore.NewQuery([]string{"bench"}, nil)
	what, ns := figure(float64(n))+" grants: ", []quantity{{unit: "ns", less: true}}
	waiting, apart := randomReads(n)
	if err := r.compare(ctx, o.rounds, what+"look-up", ns,
		subject{"matcher `knocked`", map[int]float64{0: 50}, o.random(n, func(i int) bool { return query.Match(table, address(i)) })},
		subject{"Go map", nil, o.random(n, func(i int) bool { _, in := plain[address(i)]; return in })},
		subject{"limit: one read of an array of that size, each after the other", nil, o.random(n, waiting)},
		subject{"limit: the same, many reads at a time", nil, o.random(n, apart)},
	); err != nil {
		return err
	}
	if err := r.compare(ctx, o.rounds, what+"look-up of a stranger", ns,
		subject{"matcher `knocked`", nil, o.random(n, func(i int) bool { return !query.Match(table, address(n+i)) })},
		subject{"Go map", nil, o.random(n, func(i int) bool { _, in := plain[address(n+i)]; return !in })},
	); err != nil {
		return err
	}
	runtime.KeepAlive(gate)
	size := func(i int) func(context.Context) ([]float64, error) {
		return func(context.Context) ([]float64, error) {
			return []float64{float64(heap[i+1]-heap[i]) / float64(n)}, nil
		}
	}
	return r.compare(ctx, 1, what+"memory of each", []quantity{{unit: "bytes", less: true}},
		subject{"live grants with all indexes", map[int]float64{0: 200}, size(0)},
		subject{"the same, and kept in the memory store", nil, size(1)},
		subject{"Go map of addresses", nil, size(2)})
}

// random measures a function that is called with random numbers below n: nanoseconds
// of one call, without what making such numbers costs.
func (o options) random(n int, f func(int) bool) func(context.Context) ([]float64, error) {
	calls := o.some(2_000_000)
	took := func(f func(int) bool) float64 {
		begin, x := time.Now(), rand.Uint64()
		for range calls {
			x = x*6364136223846793005 + 1442695040888963407
			if i, _ := bits.Mul64(x, uint64(n)); !f(int(i)) {
				panic("a look-up with a wrong answer")
			}
		}
		return float64(time.Since(begin).Nanoseconds()) / float64(calls)
	}
	return func(context.Context) ([]float64, error) {
		return []float64{took(f) - took(func(int) bool { return true })}, nil
	}
}

// randomReads are reads of an array of 64 bytes for each of n grants, in huge pages
// as the table is: one that needs what the read before has found, and one that does
// not.
func randomReads(n int) (waiting, apart func(int) bool) {
	const words = 8
	array := make([]uint64, n*words)
	whole := len(array) * 8 &^ (syscall.Getpagesize() - 1)
	_ = syscall.Madvise(unsafe.Slice((*byte)(unsafe.Pointer(&array[0])), whole), syscall.MADV_HUGEPAGE)
	for i := range array {
		array[i] = uint64(i%words) & 1 // the first word of each is 0
	}
	last := uint64(0)
	return func(i int) bool { last = array[uint64(i*words)+last]; return last == 0 },
		func(i int) bool { return array[i*words] == 0 }
}

// forgetful is a store without grants.
type forgetful struct{ *knockcore.MemoryStore }

func (forgetful) SaveGrant(context.Context, *knockcore.Grant) error { return nil }

// grantedTo is a gatekeeper with a grant for each of n addresses.
func grantedTo(ctx context.Context, n int, store knockcore.Store) (*knockcore.Gatekeeper, error) {
	gate, err := gateFor([]*knockcore.Client{benchClient("bench")}, n, store)
	for i := 0; i < n && err == nil; i++ {
		_, err = gate.GrantByHand(ctx, "bench", "bench", knockcore.AddrPrefix(address(i)), time.Hour)
	}
	return gate, err
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

// gateFor is a gatekeeper with a service on port 22.
func gateFor(clients []*knockcore.Client, grants int, store knockcore.Store) (*knockcore.Gatekeeper, error) {
	ring, err := knockcore.NewKeyring(clients)
	if err != nil {
		return nil, err
	}
	service := &knockcore.Service{
		Name: "bench", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 22, High: 22}}, OpenFor: time.Hour, MaxOpen: time.Hour,
	}
	return knockcore.NewGatekeeper(
		knockcore.Config{Keyring: ring, Services: []*knockcore.Service{service}, Limits: knockcore.NewLimiter(knockcore.LimitConfig{})},
		knockcore.NewState(store, grants))
}
