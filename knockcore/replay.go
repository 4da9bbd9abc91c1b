// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"container/heap"
	"sync"
	"time"
)

// DefaultReplayCapacity is how many nonces a ReplayGuard remembers by default.
const DefaultReplayCapacity = 1 << 18

// replaySlice is the width in ms of the timestamp slices in which nonces are
// forgotten together.
const replaySlice = 1000

// ReplayGuard remembers which frames were accepted, so that each is accepted
// once. It is bounded and safe for concurrent use.
//
// # Why no replay is accepted
//
// Each remembered frame has a timestamp, which is authenticated. The guard
// keeps a floor: the greatest timestamp of a slice it has forgotten. A frame at
// or below the floor is refused as stale whatever the clock says, so a frame is
// either still remembered (and refused as a replay) or at or below the floor
// (and refused as stale). Clocks play no part in this argument: a clock set back
// cannot revive a frame. The clock only decides which slices may be forgotten
// when room is needed: those older than the time window. If none is, the new
// frame is refused (ReasonReplayFull); a live nonce is never forgotten.
//
// Because nonces are forgotten only when room is needed, the guard also knows
// frames that were accepted long before the time window, for which Seen answers
// true: the head of an old capture looks like any unknown stream.
type ReplayGuard struct {
	mu       sync.Mutex
	capacity int
	share    int
	keys     map[ReplayKey]struct{}
	slices   map[int64][]replayRef // by slice number; each only ever grows
	order    sliceHeap             // the keys of slices
	clients  map[string]int
	floor    int64 // Unix ms; frames at or below are stale
}

type replayRef struct {
	key    ReplayKey
	client string
}

// NewReplayGuard makes a guard for capacity nonces (DefaultReplayCapacity if it
// is not positive). One client may hold at most half of them, so that a client
// gone wild locks out only itself.
func NewReplayGuard(capacity int) *ReplayGuard {
	if capacity <= 0 {
		capacity = DefaultReplayCapacity
	}
	return &ReplayGuard{
		capacity: capacity,
		share:    max(1, capacity/2),
		keys:     make(map[ReplayKey]struct{}),
		slices:   make(map[int64][]replayRef),
		clients:  make(map[string]int),
		floor:    -1 << 63,
	}
}

// Nonce is a frame about to be spent.
type Nonce struct {
	Key    ReplayKey
	Client string
	// Time is the frame's authenticated timestamp; whole milliseconds count.
	Time time.Time
}

// Spend records the nonce, exactly once: every later call for the same key gets
// ReasonReplay. now-window is the age from which on nonces may be forgotten when
// room is needed. Other errors are ReasonStale (at or below the floor) and
// ReasonReplayFull.
func (g *ReplayGuard) Spend(n Nonce, now time.Time, window time.Duration) error {
	at := n.Time.UnixMilli()
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, seen := g.keys[n.Key]; seen {
		return ReasonReplay
	}
	if at <= g.floor {
		return ReasonStale
	}
	if g.full(n.Client) {
		g.forget(n.Client, now.Add(-window).UnixMilli())
		if g.full(n.Client) {
			return ReasonReplayFull
		}
		if at <= g.floor {
			return ReasonStale
		}
	}
	g.add(n, at)
	return nil
}

// Restore records a nonce that was spent in a former life; it never fails, also
// not over the capacity, and knowing the nonce already is not an error.
func (g *ReplayGuard) Restore(n Nonce) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, seen := g.keys[n.Key]; !seen {
		g.add(n, n.Time.UnixMilli())
	}
}

func (g *ReplayGuard) add(n Nonce, at int64) {
	slice := floorDiv(at, replaySlice)
	refs, ok := g.slices[slice]
	if !ok {
		heap.Push(&g.order, slice)
	}
	g.keys[n.Key] = struct{}{}
	g.slices[slice] = append(refs, replayRef{n.Key, n.Client})
	g.clients[n.Client]++
}

// full reports whether the client may not have another nonce remembered.
func (g *ReplayGuard) full(client string) bool {
	return len(g.keys) >= g.capacity || g.clients[client] >= g.share
}

// forget drops whole slices, oldest first, that end before limit (Unix ms),
// until there is room for another nonce of the client: no more, so that a call
// takes as long as one slice has nonces.
func (g *ReplayGuard) forget(client string, limit int64) {
	for len(g.order) > 0 && g.full(client) {
		oldest := g.order[0]
		end := oldest*replaySlice + replaySlice - 1
		if end >= limit {
			return
		}
		for _, ref := range g.slices[oldest] {
			delete(g.keys, ref.key)
			if g.clients[ref.client]--; g.clients[ref.client] == 0 {
				delete(g.clients, ref.client)
			}
		}
		delete(g.slices, oldest)
		heap.Pop(&g.order)
		g.floor = max(g.floor, end)
	}
}

// Seen reports whether the frame was accepted before, as far as the guard
// remembers.
func (g *ReplayGuard) Seen(key ReplayKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, seen := g.keys[key]
	return seen
}

// RaiseFloor makes every frame with a timestamp at or before t stale. The floor
// never sinks.
func (g *ReplayGuard) RaiseFloor(t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.floor = max(g.floor, t.UnixMilli())
}

// Floor returns the floor, the zero time if there is none yet.
func (g *ReplayGuard) Floor() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.floor == -1<<63 {
		return time.Time{}
	}
	return time.UnixMilli(g.floor)
}

// Len is the number of remembered nonces.
func (g *ReplayGuard) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.keys)
}

// Capacity is the greatest number of remembered nonces.
func (g *ReplayGuard) Capacity() int { return g.capacity }

// All calls f for each remembered nonce, with the timestamp rounded down to its
// slice, until f returns false: for snapshots. The guard is not locked while f
// runs, and never for longer than a few dozen slices take to be listed, so
// spending goes on meanwhile. Each nonce that is remembered from the beginning
// to the end is told exactly once; one that is spent meanwhile may be told; one
// that is forgotten meanwhile may not be told, and lies at or below the Floor as
// it is after All.
func (g *ReplayGuard) All(f func(Nonce) bool) {
	type part struct {
		slice int64
		refs  []replayRef // the elements of a slice never change: see add and forget
	}
	parts := make([]part, 0, 64)
	tell := func() bool {
		g.mu.Unlock()
		defer g.mu.Lock()
		for _, p := range parts {
			for _, ref := range p.refs {
				if !f(Nonce{Key: ref.key, Client: ref.client, Time: time.UnixMilli(p.slice * replaySlice)}) {
					return false
				}
			}
		}
		parts = parts[:0]
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// The map changes while the loop runs, never at the same time as it: what
	// the language says about a range over a map that changes is what All promises.
	for slice, refs := range g.slices {
		if parts = append(parts, part{slice, refs}); len(parts) == cap(parts) && !tell() {
			return
		}
	}
	tell()
}

// sliceHeap is a heap of slice numbers, the least first.
type sliceHeap []int64

func (h sliceHeap) Len() int           { return len(h) }
func (h sliceHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h sliceHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *sliceHeap) Push(x any)        { *h = append(*h, x.(int64)) }

func (h *sliceHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
