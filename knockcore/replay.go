// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
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
	keys     map[ReplayKey]int64   // to the slice number
	slices   map[int64][]replayRef // by slice number
	oldest   int64                 // no slice is below this one
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
		keys:     make(map[ReplayKey]int64),
		slices:   make(map[int64][]replayRef),
		clients:  make(map[string]int),
		floor:    -1 << 63,
	}
}

// Nonce is a frame about to be spent.
type Nonce struct {
	Key    ReplayKey
	Client string
	// Time is the frame's authenticated timestamp.
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
	if len(g.keys) >= g.capacity || g.clients[n.Client] >= g.share {
		g.forget(now.Add(-window).UnixMilli())
		if len(g.keys) >= g.capacity || g.clients[n.Client] >= g.share {
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
	if len(g.slices) == 0 || slice < g.oldest {
		g.oldest = slice
	}
	g.keys[n.Key] = slice
	g.slices[slice] = append(g.slices[slice], replayRef{n.Key, n.Client})
	g.clients[n.Client]++
}

// forget drops whole slices, oldest first, that end before limit (Unix ms),
// until an eighth of the room is free.
func (g *ReplayGuard) forget(limit int64) {
	enough := g.capacity - max(1, g.capacity/8)
	wide := int64(0)
	for len(g.keys) > 0 && (len(g.keys) > enough || g.overShare()) {
		end := (g.oldest+1)*replaySlice - 1
		if end >= limit {
			return
		}
		refs, ok := g.slices[g.oldest]
		if !ok {
			// Slices may lie far apart (timestamps are the clients'); after a few
			// empty ones look for the next directly.
			if wide++; wide > 64 {
				g.oldest = g.nextSlice()
				wide = 0
			} else {
				g.oldest++
			}
			continue
		}
		for _, ref := range refs {
			delete(g.keys, ref.key)
			if g.clients[ref.client]--; g.clients[ref.client] == 0 {
				delete(g.clients, ref.client)
			}
		}
		delete(g.slices, g.oldest)
		g.floor = max(g.floor, end)
		g.oldest++
	}
}

func (g *ReplayGuard) overShare() bool {
	for _, n := range g.clients {
		if n >= g.share {
			return true
		}
	}
	return false
}

func (g *ReplayGuard) nextSlice() int64 {
	next := int64(1<<63 - 1)
	for slice := range g.slices {
		next = min(next, slice)
	}
	return next
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

// All calls f for each remembered nonce with the timestamp rounded down to its
// slice, until f returns false: for snapshots. The guard is locked meanwhile.
func (g *ReplayGuard) All(f func(Nonce) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for slice, refs := range g.slices {
		for _, ref := range refs {
			if !f(Nonce{Key: ref.key, Client: ref.client, Time: time.UnixMilli(slice * replaySlice)}) {
				return
			}
		}
	}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
