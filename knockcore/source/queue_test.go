// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// numbered is the i-th packet of an address.
func numbered(from netip.Addr, i int) *Packet {
	return &Packet{At: time.Now(), From: netip.AddrPortFrom(from, 1), Payload: binary.BigEndian.AppendUint32(nil, uint32(i))}
}

func numberOf(p *Packet) int { return int(binary.BigEndian.Uint32(p.Payload)) }

// someAddr is the i-th of many addresses.
func someAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// held is a queue whose worker waits with its first packet until release is
// called, and notes the numbers of the packets it gets.
func held(t *testing.T, cfg QueueConfig) (q *Queue, release func() []int) {
	t.Helper()
	gate, taken := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var mu sync.Mutex
	var got []int
	cfg.Handle = func(_ context.Context, p *Packet) {
		once.Do(func() { close(taken) })
		<-gate
		mu.Lock()
		defer mu.Unlock()
		got = append(got, numberOf(p))
	}
	q = NewQueue(cfg)
	if q.push(numbered(someAddr(1), 0)) != queued {
		t.Fatal("an empty queue has no room")
	}
	<-taken
	return q, func() []int {
		close(gate)
		if dropped := q.Close(context.Background()); dropped != 0 {
			t.Errorf("%d dropped while closing", dropped)
		}
		return got
	}
}

func TestQueueIsBounded(t *testing.T) {
	q, release := held(t, QueueConfig{Size: 8, Workers: 1})
	for i := range 20 {
		want := queued
		if i >= 8 {
			want = dropFull
		}
		if got := q.push(numbered(someAddr(i), i+1)); got != want {
			t.Errorf("packet %d: %v, want %v", i, got, want)
		}
	}
	if got := release(); fmt.Sprint(got) != "[0 1 2 3 4 5 6 7 8]" {
		t.Errorf("got %v", got)
	}
	if q.push(numbered(someAddr(1), 1)) != queueClosed {
		t.Error("a closed queue takes packets")
	}
}

func TestGoodAddressesGoFirst(t *testing.T) {
	limits := knockcore.NewLimiter(knockcore.LimitConfig{Uses: 1, Every: time.Hour})
	good, charged := someAddr(100_000), someAddr(100_001)
	limits.Good(good, time.Now())
	for range 2 {
		limits.Charge(charged, anyMethod, time.Now())
	}
	q, release := held(t, QueueConfig{Size: 8, Workers: 1, Limits: limits})
	for i := range 4 {
		if q.push(numbered(charged, 10+i)) != queued {
			t.Errorf("packet %d: a queue that is not over half full refuses an address over its limit", i)
		}
	}
	if q.push(numbered(someAddr(5), 14)) != queued {
		t.Error("another address is refused")
	}
	if q.push(numbered(charged, 99)) != dropLimited {
		t.Error("a queue that is over half full takes packets of an address over its limit")
	}
	for i := range 3 {
		q.push(numbered(someAddr(6+i), 15+i))
	}
	if q.push(numbered(someAddr(9), 99)) != dropFull {
		t.Error("the lane is not full")
	}
	for i := range 8 {
		if q.push(numbered(good, 20+i)) != queued {
			t.Errorf("packet %d of a good address finds no room in a lane of its own", i)
		}
	}
	if q.push(numbered(good, 99)) != dropFull {
		t.Error("the good lane has no bound")
	}
	// The first turn was that of packet 0; of each four, one belongs to strangers.
	if got := release(); fmt.Sprint(got) != "[0 20 21 10 22 23 24 11 25 26 27 12 13 14 15 16 17]" {
		t.Errorf("got %v", got)
	}
}

// TestOrder: what comes from one socket is decided in order, and where that
// matters what comes from one address, however many workers there are.
func TestOrder(t *testing.T) {
	t.Run("sockets", func(t *testing.T) { testOrder(t, nil, func(int) uint16 { return 7 }) })
	t.Run("addresses", func(t *testing.T) {
		testOrder(t, func(*Packet) bool { return true }, func(i int) uint16 { return uint16(i) })
	})
}

func testOrder(t *testing.T, inOrder func(*Packet) bool, port func(i int) uint16) {
	const addresses, each = 50, 200
	var mu sync.Mutex
	next := make(map[netip.Addr]int)
	q := NewQueue(QueueConfig{Size: addresses * each, Workers: 8, InOrder: inOrder, Handle: func(_ context.Context, p *Packet) {
		mu.Lock()
		defer mu.Unlock()
		if n := numberOf(p); n != next[p.From.Addr()] {
			t.Errorf("%v: packet %d instead of %d", p.From.Addr(), n, next[p.From.Addr()])
		}
		next[p.From.Addr()]++
	}})
	for i := range each {
		for a := range addresses {
			p := numbered(someAddr(a), i)
			p.From = netip.AddrPortFrom(p.From.Addr(), port(i))
			for q.push(p) != queued { // which addresses share a worker is random
				runtime.Gosched()
			}
		}
	}
	q.Close(context.Background())
	for a := range addresses {
		if next[someAddr(a)] != each {
			t.Errorf("address %d: %d packets", a, next[someAddr(a)])
		}
	}
}

// TestCloseIsBounded: a decision that does not end holds up nobody.
func TestCloseIsBounded(t *testing.T) {
	taken := make(chan struct{})
	ended := make(chan struct{})
	q := NewQueue(QueueConfig{Size: 8, Workers: 1, Handle: func(ctx context.Context, _ *Packet) {
		close(taken)
		<-ctx.Done()
		close(ended)
	}})
	q.push(numbered(someAddr(1), 0))
	<-taken
	for i := range 5 {
		q.push(numbered(someAddr(1), i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if dropped := q.Close(ctx); dropped != 5 {
		t.Errorf("%d dropped, want 5", dropped)
	}
	<-ended // the decision under way was told
	if q.Close(context.Background()) != 0 {
		t.Error("closing again drops something")
	}
}

// TestMemoryStays: a flood leaves no more behind than the places hold.
func TestMemoryStays(t *testing.T) {
	var decided atomic.Int64
	q := NewQueue(QueueConfig{Size: 64, Workers: 2, Handle: func(context.Context, *Packet) { decided.Add(1) }})
	p := &Packet{At: time.Now(), Payload: make([]byte, 1000)}
	fill := func() {
		for i := range 5000 {
			p.From = netip.AddrPortFrom(someAddr(i), 1)
			q.push(p)
		}
	}
	fill()
	if allocs := testing.AllocsPerRun(5, fill); allocs > 50 {
		t.Errorf("%.0f allocations for 5000 packets", allocs)
	}
	q.Close(context.Background())
}

// TestSwitchLosesNothing swaps queues while packets come, some of the new ones
// being taken back as after a failed reload.
func TestSwitchLosesNothing(t *testing.T) {
	var stats Stats
	s := NewSwitch(&stats)
	s.Sink(numbered(someAddr(1), 0))
	if stats.Unattended.Load() != 1 {
		t.Error("a packet for nobody is not counted")
	}
	var decided atomic.Int64
	type attached struct {
		q      *Queue
		detach func()
	}
	attach := func() attached {
		q := NewQueue(QueueConfig{Size: 1 << 16, Workers: 2, Handle: func(context.Context, *Packet) { decided.Add(1) }})
		return attached{q, s.Attach(q)}
	}
	end := func(a attached) {
		a.detach()
		if dropped := a.q.Close(context.Background()); dropped > 0 {
			t.Errorf("%d dropped", dropped)
		}
	}
	current := attach()
	stop, sent := make(chan struct{}), make(chan int64)
	go func() {
		n := int64(0)
		for {
			select {
			case <-stop:
				sent <- n
				return
			default:
				if n-decided.Load() > 1<<15 {
					runtime.Gosched() // the workers of a busy machine are behind
					continue
				}
				s.Sink(numbered(someAddr(int(n)), 0))
				n++
			}
		}
	}()
	for i := range 300 {
		fresh := attach()
		if i%3 == 0 {
			end(fresh)
			continue
		}
		end(current)
		current = fresh
	}
	close(stop)
	n := <-sent
	end(current)
	if lost := stats.Full.Load() + stats.Limited.Load() + stats.Unattended.Load() - 1; decided.Load() != n || lost != 0 || stats.Received.Load() != uint64(n)+1 {
		t.Errorf("%d sent, %d decided, %d lost", n, decided.Load(), lost)
	}
}
