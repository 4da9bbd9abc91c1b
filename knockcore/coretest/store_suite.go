// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package coretest holds the conformance suites of the interfaces of knockcore:
// whoever implements one runs its suite.
package coretest

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// window is the time window of the suite's frames.
const window = 30 * time.Second

// StoreSuite tests an implementation of knockcore.Store. open opens the store
// that lives in dir, or one in memory; it must remember at least 1024 nonces and
// at most a million, and its clock must be time.Now. It is called again for the
// same dir after Close. A durable store then knows everything again; of another
// one the suite asks only what holds while it is open.
func StoreSuite(t *testing.T, open func(t *testing.T, dir string) knockcore.Store, durable bool) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, h *storeHarness)
	}{
		{"one of many spends wins", testSpendOnce},
		{"parallel spends of different nonces", testSpendMany},
		{"seen", testSeen},
		{"clients are apart", testClientsApart},
		{"full guard refuses", testReplayFull},
		{"old frames", testOldFrames},
		{"grants", testGrants},
		{"grants replaced and deleted", testGrantsChange},
		{"grants expire", testGrantsExpire},
		{"bans", testBans},
		{"bans are forgotten", testBansForgotten},
		{"parallel grants and bans", testParallelGrants},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir() + "/state"
			h := &storeHarness{T: t, durable: durable, open: func() knockcore.Store { return open(t, dir) }}
			h.Store = h.open()
			defer func() { h.must(h.Close()) }()
			test.run(t, h)
		})
	}
}

type storeHarness struct {
	knockcore.Store
	*testing.T
	durable bool
	open    func() knockcore.Store
}

// reopen closes and opens a durable store; it returns false for others.
func (h *storeHarness) reopen() bool {
	h.Helper()
	if !h.durable {
		return false
	}
	h.must(h.Close())
	h.Store = h.open()
	return true
}

func (h *storeHarness) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// check is must for other goroutines than the test's.
func (h *storeHarness) check(err error) {
	h.Helper()
	if err != nil {
		h.Error(err)
	}
}

// spend spends a nonce now and wants this outcome. Any goroutine may call it.
func (h *storeHarness) spend(n knockcore.Nonce, want knockcore.Reason) {
	h.Helper()
	err := h.Spend(context.Background(), n, time.Now(), window)
	if got := knockcore.ReasonOf(err); got != want {
		h.Errorf("spending gives %v, want %v", err, want)
	}
}

func nonce(i int, client string) knockcore.Nonce {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(i))
	return knockcore.Nonce{Key: knockcore.NewReplayKey(knockcore.ReplayUDP, client, b[:]), Client: client, Time: time.Now()}
}

func testSpendOnce(t *testing.T, h *storeHarness) {
	for round := range 10 {
		n := nonce(round, "alice")
		var wins, replays atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 100 {
			wg.Go(func() {
				<-start
				switch err := h.Spend(context.Background(), n, time.Now(), window); knockcore.ReasonOf(err) {
				case knockcore.ReasonNone:
					wins.Add(1)
				case knockcore.ReasonReplay:
					replays.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		if wins.Load() != 1 || replays.Load() != 99 {
			t.Fatalf("%d won, %d were replays", wins.Load(), replays.Load())
		}
	}
	if h.reopen() {
		for round := range 10 {
			h.spend(nonce(round, "alice"), knockcore.ReasonReplay)
		}
	}
}

func testSpendMany(_ *testing.T, h *storeHarness) {
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 60 {
				h.spend(nonce(i, fmt.Sprint("client", worker)), knockcore.ReasonNone)
			}
		})
	}
	wg.Wait()
	h.reopen()
	for worker := range 8 {
		for i := range 60 {
			h.spend(nonce(i, fmt.Sprint("client", worker)), knockcore.ReasonReplay)
		}
	}
}

func testSeen(t *testing.T, h *storeHarness) {
	n := nonce(1, "alice")
	if h.Seen(n.Key) {
		t.Fatal("seen before it was spent")
	}
	h.spend(n, knockcore.ReasonNone)
	h.reopen()
	if !h.Seen(n.Key) || h.Seen(nonce(2, "alice").Key) {
		t.Fatal("seen is wrong after spending")
	}
}

func testClientsApart(_ *testing.T, h *storeHarness) {
	h.spend(nonce(1, "alice"), knockcore.ReasonNone)
	h.spend(nonce(1, "bob"), knockcore.ReasonNone)
	h.spend(nonce(1, "alice"), knockcore.ReasonReplay)
}

func testReplayFull(t *testing.T, h *storeHarness) {
	// One client alone must come to an end, sooner or later, without harm to
	// others.
	const most = 1 << 20
	for i := range most + 1 {
		err := h.Spend(context.Background(), nonce(i, "wild"), time.Now(), time.Hour)
		if knockcore.ReasonOf(err) == knockcore.ReasonReplayFull {
			h.spend(nonce(0, "wild"), knockcore.ReasonReplay)
			h.spend(nonce(0, "calm"), knockcore.ReasonNone)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the guard was never full")
}

// testOldFrames makes the store forget a frame, and wants it refused whatever the
// clock says.
func testOldFrames(t *testing.T, h *storeHarness) {
	old := nonce(1, "alice")
	h.spend(old, knockcore.ReasonNone)
	later := time.Now().Add(3 * window)
	var err error
	for i := 0; i < 1<<20 && h.Seen(old.Key); i++ {
		n := nonce(i, fmt.Sprint("client", i%4))
		n.Time = later
		err = h.Spend(context.Background(), n, later, window)
	}
	if h.Seen(old.Key) {
		t.Fatalf("still seen after a million nonces, the last of which gave %v", err)
	}
	for range 3 {
		err := h.Spend(context.Background(), old, old.Time, window)
		if r := knockcore.ReasonOf(err); r != knockcore.ReasonStale && r != knockcore.ReasonReplay {
			t.Fatalf("a forgotten frame gives %v", err)
		}
		h.reopen()
	}
}
