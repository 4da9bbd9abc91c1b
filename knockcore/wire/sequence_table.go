// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"container/list"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Defaults of the tables of unfinished sequences, libknock's (libknock.md
// sections 6.3 and 11).
const (
	// DefaultSequenceLength is the number of parts of a sequence.
	DefaultSequenceLength = 3
	// DefaultSequenceWindow is how long a sequence may take from its first part.
	DefaultSequenceWindow = 10 * time.Second
	// DefaultOpenPerSource is how many sequences one address may have unfinished.
	DefaultOpenPerSource = 8
	// DefaultOpenSequences is how many sequences may be unfinished in total.
	DefaultOpenSequences = 4096
)

// openTable holds unfinished sequences: for at most window from their first
// part, at most perSource of one address, perClient of one client and capacity
// in total. Only authentic parts reach it, so strangers cannot fill it; the
// limits are there for clients gone wild, and for whoever holds a client's
// secret and forges source addresses:
//
//   - A client at its share (an eighth of the capacity) is refused, and locks out
//     only itself.
//   - At an address that is full, a client with no sequence there takes the place
//     of the oldest one of a client that has several; otherwise it is refused.
//   - In a full table the oldest sequence makes room. It will not complete, so
//     this fails closed.
//
// All operations cost constant time, apart from perSource, and what expired goes
// as soon as anything happens or sweep is called. It is not safe for concurrent
// use.
type openTable[K comparable, S any] struct {
	window                         time.Duration
	perSource, perClient, capacity int

	entries map[K]*openEntry[K, S]
	sources map[netip.Addr][]*openEntry[K, S] // each oldest first, never empty
	clients map[string]int                    // never 0
	order   list.List                         // of *openEntry, oldest first
}

// openEntry is one unfinished sequence; state is the user's.
type openEntry[K comparable, S any] struct {
	key    K
	src    netip.Addr
	client string
	start  time.Time
	elem   *list.Element
	state  S
}

// newOpenTable makes a table; 0 stands for each default.
func newOpenTable[K comparable, S any](window time.Duration, perSource, capacity int) (*openTable[K, S], error) {
	if window < 0 || perSource < 0 || capacity < 0 {
		return nil, errSequenceLimits
	}
	t := &openTable[K, S]{
		window:    orDefault(window, DefaultSequenceWindow),
		perSource: orDefault(perSource, DefaultOpenPerSource),
		capacity:  orDefault(capacity, DefaultOpenSequences),
		entries:   make(map[K]*openEntry[K, S]),
		sources:   make(map[netip.Addr][]*openEntry[K, S]),
		clients:   make(map[string]int),
	}
	t.perClient = max(t.capacity/8, min(t.perSource, t.capacity))
	return t, nil
}

var errSequenceLimits = errors.New("the window and the limits of sequences must not be negative")

// orDefault is v if it is not 0, else normal.
func orDefault[T ~int | ~int64](v, normal T) T {
	if v != 0 {
		return v
	}
	return normal
}

// sourceKey is the address that stands for a source: unmapped, without zone.
func sourceKey(src netip.Addr) netip.Addr { return src.Unmap().WithZone("") }

// sweep removes what expired and hands it to f. A part at exactly the window is
// in time. A clock that was set back further than the window expires too, so
// that nothing lives on until the clock has caught up.
func (t *openTable[K, S]) sweep(now time.Time, f func(*openEntry[K, S])) {
	for first := t.order.Front(); first != nil; first = t.order.Front() {
		e := first.Value.(*openEntry[K, S])
		if age := now.Sub(e.start); -t.window <= age && age <= t.window {
			return
		}
		t.remove(e)
		if f != nil {
			f(e)
		}
	}
}

// open adds a sequence that is not there yet, or refuses with ReasonLimited.
func (t *openTable[K, S]) open(now time.Time, key K, src netip.Addr, client string) (*openEntry[K, S], error) {
	if t.clients[client] >= t.perClient {
		return nil, &knockcore.Refusal{Reason: knockcore.ReasonLimited, Client: client, Detail: "too many unfinished sequences of the client"}
	}
	if here := t.sources[src]; len(here) >= t.perSource {
		victim := crowder(here, client)
		if victim == nil {
			return nil, &knockcore.Refusal{Reason: knockcore.ReasonLimited, Client: client, Detail: "too many unfinished sequences from the address"}
		}
		t.remove(victim)
	}
	if len(t.entries) >= t.capacity {
		t.remove(t.order.Front().Value.(*openEntry[K, S]))
	}
	e := &openEntry[K, S]{key: key, src: src, client: client, start: now}
	e.elem = t.order.PushBack(e)
	t.entries[key] = e
	t.sources[src] = append(t.sources[src], e)
	t.clients[client]++
	return e, nil
}

// crowder finds the oldest entry of a client that has several among entries,
// nil if there is none or newcomer has one itself.
func crowder[K comparable, S any](entries []*openEntry[K, S], newcomer string) (victim *openEntry[K, S]) {
	for i, e := range entries {
		if e.client == newcomer {
			return nil
		}
		if victim == nil && slices.ContainsFunc(entries[i+1:], func(o *openEntry[K, S]) bool { return o.client == e.client }) {
			victim = e
		}
	}
	return victim
}

// remove takes an entry out, and every counter that it leaves at zero.
func (t *openTable[K, S]) remove(e *openEntry[K, S]) {
	delete(t.entries, e.key)
	t.order.Remove(e.elem)
	if t.clients[e.client]--; t.clients[e.client] == 0 {
		delete(t.clients, e.client)
	}
	here := t.sources[e.src]
	if len(here) == 1 {
		delete(t.sources, e.src)
		return
	}
	i := slices.Index(here, e)
	t.sources[e.src] = slices.Delete(here, i, i+1)
}
