// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const testWindow = 30 * time.Second

var testStart = time.UnixMilli(1_800_000_000_000)

func testNonce(i int, client string, at time.Time) Nonce {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(i))
	return Nonce{Key: NewReplayKey(ReplayUDP, client, b[:]), Client: client, Time: at}
}

func wantReason(t *testing.T, err error, want Reason) {
	t.Helper()
	if got := ReasonOf(err); got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestReplayOnceOnly(t *testing.T) {
	g := NewReplayGuard(16)
	n := testNonce(1, "alice", testStart)
	if g.Seen(n.Key) {
		t.Fatal("seen before it was spent")
	}
	wantReason(t, g.Spend(n, testStart, testWindow), ReasonNone)
	wantReason(t, g.Spend(n, testStart, testWindow), ReasonReplay)
	if !g.Seen(n.Key) || g.Len() != 1 {
		t.Fatal("not remembered")
	}
	// The same key with another timestamp is the same frame.
	n.Time = n.Time.Add(time.Hour)
	wantReason(t, g.Spend(n, testStart.Add(time.Hour), testWindow), ReasonReplay)
}

func TestReplayParallel(t *testing.T) {
	g := NewReplayGuard(0)
	if g.Capacity() != DefaultReplayCapacity {
		t.Fatalf("capacity %d", g.Capacity())
	}
	var wins atomic.Int32
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if g.Spend(testNonce(7, "alice", testStart), testStart, testWindow) == nil {
				wins.Add(1)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Fatalf("%d of 100 won", wins.Load())
	}
}

// TestReplayForget fills the guard, lets time pass, fills it again: whatever was
// forgotten is below the floor.
func TestReplayForget(t *testing.T) {
	g := NewReplayGuard(64)
	now := testStart
	var spent []Nonce
	for i := range 1000 {
		now = now.Add(2 * time.Second)
		n := testNonce(i, fmt.Sprint("client", i%5), now.Add(-time.Duration(i%20)*time.Second))
		wantReason(t, g.Spend(n, now, testWindow), ReasonNone)
		spent = append(spent, n)
		if g.Len() > 64 {
			t.Fatalf("%d nonces remembered", g.Len())
		}
	}
	// The clock is set back to each frame's own time: nothing comes through.
	for _, n := range spent {
		err := g.Spend(n, n.Time, testWindow)
		if errors.Is(err, ReasonReplay) == n.Time.After(g.Floor()) {
			continue
		}
		t.Fatalf("frame of %v, floor %v: %v", n.Time, g.Floor(), err)
	}
	// A nonce of the last window is never forgotten.
	if floor := g.Floor(); !floor.Before(now.Add(-testWindow)) {
		t.Fatalf("floor %v at %v", floor, now)
	}
}

func TestReplayFullOfLiveNonces(t *testing.T) {
	g := NewReplayGuard(8)
	for i := range 8 {
		wantReason(t, g.Spend(testNonce(i, fmt.Sprint("c", i), testStart), testStart, testWindow), ReasonNone)
	}
	late := testStart.Add(testWindow) // every one of them is still in time
	wantReason(t, g.Spend(testNonce(8, "c8", late), late, testWindow), ReasonReplayFull)
	for i := range 8 {
		wantReason(t, g.Spend(testNonce(i, fmt.Sprint("c", i), testStart), late, testWindow), ReasonReplay)
	}
	later := testStart.Add(testWindow + 2*time.Second)
	wantReason(t, g.Spend(testNonce(8, "c8", later), later, testWindow), ReasonNone)
	wantReason(t, g.Spend(testNonce(0, "c0", testStart), later, testWindow), ReasonStale)
	// The clock goes back: what was forgotten stays refused.
	wantReason(t, g.Spend(testNonce(0, "c0", testStart), testStart, testWindow), ReasonStale)
}

func TestReplayShare(t *testing.T) {
	g := NewReplayGuard(10)
	for i := range 5 {
		wantReason(t, g.Spend(testNonce(i, "wild", testStart), testStart, testWindow), ReasonNone)
	}
	wantReason(t, g.Spend(testNonce(5, "wild", testStart), testStart, testWindow), ReasonReplayFull)
	wantReason(t, g.Spend(testNonce(0, "calm", testStart), testStart, testWindow), ReasonNone)
	// Once its old ones may be forgotten, it goes on.
	later := testStart.Add(time.Minute)
	wantReason(t, g.Spend(testNonce(6, "wild", later), later, testWindow), ReasonNone)
	wantReason(t, g.Spend(testNonce(0, "wild", testStart), later, testWindow), ReasonStale)
}

func TestReplayCapacityOne(t *testing.T) {
	g := NewReplayGuard(1)
	now := testStart
	for i := range 50 {
		n := testNonce(i, "alice", now)
		wantReason(t, g.Spend(n, now, testWindow), ReasonNone)
		wantReason(t, g.Spend(testNonce(i+1000, "alice", now), now, testWindow), ReasonReplayFull)
		if g.Len() != 1 {
			t.Fatalf("%d nonces", g.Len())
		}
		now = now.Add(testWindow + 1001*time.Millisecond)
	}
}

// TestReplayFarApart has one nonce a slice, the slices hours, years or most of
// time apart, before and after 1970, and wants forgetting to be quick: it once
// took a look at every slice for each that it dropped.
func TestReplayFarApart(t *testing.T) {
	const capacity = 1 << 15
	g := NewReplayGuard(capacity)
	for i := range capacity {
		g.Restore(testNonce(i, fmt.Sprint("c", i%9), time.UnixMilli(int64(i-capacity/2)*7_200_000)))
	}
	now := time.UnixMilli(capacity * 7_200_000)
	begin := time.Now()
	for i := range capacity {
		wantReason(t, g.Spend(testNonce(capacity+i, fmt.Sprint("c", i%9), now), now, testWindow), ReasonNone)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Fatalf("took %v", took)
	}
	for i := range capacity {
		wantReason(t, g.Spend(testNonce(i, fmt.Sprint("c", i%9), time.UnixMilli(int64(i-capacity/2)*7_200_000)), now, testWindow), ReasonStale)
	}
	wantReason(t, NewReplayGuard(1).Spend(testNonce(0, "a", time.Time{}), now, testWindow), ReasonNone)
}

// TestReplayNeverAgain spends frames of many clients with random timestamps and
// a clock that jumps; no frame that was accepted ever is again.
func TestReplayNeverAgain(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		g := NewReplayGuard(1 + r.IntN(200))
		var spent []Nonce
		clock := testStart
		for i := range 3000 {
			switch r.IntN(100) {
			case 0:
				clock = clock.Add(-time.Hour)
			case 1:
				clock = clock.Add(time.Hour)
			default:
				clock = clock.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
			}
			at := clock.Add(time.Duration(r.IntN(60_001)-30_000) * time.Millisecond)
			if len(spent) > 0 && r.IntN(2) == 0 {
				old := spent[r.IntN(len(spent))]
				if err := g.Spend(old, clock, testWindow); err == nil {
					t.Fatalf("seed %d: frame of %v accepted again at %v", seed, old.Time, clock)
				}
				continue
			}
			n := testNonce(i, fmt.Sprint("c", r.IntN(4)), at)
			if g.Spend(n, clock, testWindow) == nil {
				spent = append(spent, n)
			}
		}
	}
}

func TestReplayFloor(t *testing.T) {
	g := NewReplayGuard(4)
	if !g.Floor().IsZero() {
		t.Fatalf("floor %v", g.Floor())
	}
	g.RaiseFloor(testStart)
	g.RaiseFloor(testStart.Add(-time.Hour)) // never sinks
	if !g.Floor().Equal(testStart) {
		t.Fatalf("floor %v", g.Floor())
	}
	wantReason(t, g.Spend(testNonce(1, "a", testStart), testStart, testWindow), ReasonStale)
	wantReason(t, g.Spend(testNonce(1, "a", testStart.Add(time.Millisecond)), testStart, testWindow), ReasonNone)
}

func TestReplayRestore(t *testing.T) {
	g := NewReplayGuard(2)
	for i := range 10 {
		g.Restore(testNonce(i, "a", testStart))
		g.Restore(testNonce(i, "a", testStart))
	}
	if g.Len() != 10 {
		t.Fatalf("%d nonces", g.Len())
	}
	wantReason(t, g.Spend(testNonce(3, "a", testStart), testStart, testWindow), ReasonReplay)
	wantReason(t, g.Spend(testNonce(11, "b", testStart), testStart, testWindow), ReasonReplayFull)
}

// TestReplayAll reads everything while others spend: each nonce that was there
// from the start is told once, with a timestamp of its own slice.
func TestReplayAll(t *testing.T) {
	g := NewReplayGuard(1 << 14)
	want := make(map[ReplayKey]time.Time)
	for i := range 5000 {
		n := testNonce(i, fmt.Sprint("c", i%7), testStart.Add(time.Duration(i)*100*time.Millisecond))
		wantReason(t, g.Spend(n, n.Time, testWindow), ReasonNone)
		want[n.Key] = n.Time
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 5000; ; i++ {
			select {
			case <-stop:
				return
			default:
				_ = g.Spend(testNonce(i, "d", testStart.Add(500*time.Second)), testStart.Add(500*time.Second), time.Hour)
			}
		}
	})
	told := make(map[ReplayKey]bool)
	g.All(func(n Nonce) bool {
		if told[n.Key] {
			t.Errorf("told twice")
		}
		told[n.Key] = true
		if at, ok := want[n.Key]; ok && (n.Time.After(at) || at.Sub(n.Time) >= time.Second) {
			t.Errorf("nonce of %v told as of %v", at, n.Time)
		}
		return true
	})
	close(stop)
	wg.Wait()
	for key := range want {
		if !told[key] {
			t.Fatal("a nonce was not told")
		}
	}
	calls := 0
	g.All(func(Nonce) bool { calls++; return calls < 3 })
	if calls != 3 {
		t.Fatalf("%d calls after asking to stop at 3", calls)
	}
}

func BenchmarkReplaySpend(b *testing.B) {
	b.ReportAllocs()
	g := NewReplayGuard(0)
	now := testStart
	nonces := make([]Nonce, 1<<16)
	for i := range nonces {
		nonces[i] = testNonce(i, fmt.Sprint("client", i%50), now)
	}
	i := 0
	for b.Loop() {
		n := nonces[i%len(nonces)]
		binary.BigEndian.PutUint64(n.Key[:], uint64(i))
		now = now.Add(20 * time.Microsecond)
		n.Time = now
		if err := g.Spend(n, now, time.Second); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
