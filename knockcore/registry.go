// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"container/heap"
	"crypto/subtle"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// MaxSessions is how many unused sessions one client may hold for one service.
const MaxSessions = 64

// registry holds the live grants of address and session scope. Grants in it are
// immutable: a change replaces the grant under its ID.
type registry struct {
	table *Table
	limit int // grants

	mu       sync.Mutex
	grants   map[GrantID]*record
	targets  map[target]*record       // address and session scope: who keeps a window open, as a list
	lengths  map[prefixLength]int     // how many grants of a service have such a prefix
	sessions map[sessionKey][]GrantID // session scope, oldest first
	waiters  map[sessionKey][]chan struct{}
	expiry   expiryHeap
	methods  [methodCount]int // grants by method
}

// record is a grant's place in the registry.
type record struct {
	*Grant
	at    Tick    // of Expires
	index int     // in the expiry heap
	next  *record // of the same target
}

// target is what a window is: a prefix and a service.
type target struct {
	prefix  netip.Prefix
	service string
}

// prefixLength is a length that prefixes of a service's grants have.
type prefixLength struct {
	service string
	v4      bool
	bits    int
}

type sessionKey struct{ client, service string }

func newRegistry(table *Table, limit int) *registry {
	return &registry{
		table:    table,
		limit:    limit,
		grants:   make(map[GrantID]*record),
		targets:  make(map[target]*record),
		lengths:  make(map[prefixLength]int),
		sessions: make(map[sessionKey][]GrantID),
		waiters:  make(map[sessionKey][]chan struct{}),
	}
}

func (g *Grant) target() target { return target{g.Prefix, g.Service} }

func (g *Grant) prefixLength() prefixLength {
	return prefixLength{g.Service, g.Prefix.Addr().Is4(), g.Prefix.Bits()}
}

func (g *Grant) sessionKey() sessionKey { return sessionKey{g.Client, g.Service} }

// put enters a grant. A grant of address scope that equals another one (client,
// service, prefix) takes its place and its ID: the knock that came last decides
// how long. The former grant is returned, nil if there was none. most bounds the
// grants of this method; 0 means no bound.
func (r *registry) put(g *Grant, most int) (former *Grant, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.Scope == ScopeAddress {
		for equal := r.targets[g.target()]; equal != nil; equal = equal.next {
			if equal.Scope == ScopeAddress && equal.Client == g.Client {
				g.ID = equal.ID
			}
		}
	}
	rec := r.grants[g.ID]
	switch {
	case rec != nil:
		former = rec.Grant
		r.unlink(rec)
		r.methods[former.Method]--
		rec.Grant, rec.at = g, r.table.tick(g.Expires)
		heap.Fix(&r.expiry, rec.index)
	case g.Scope == ScopeSession && len(r.sessions[g.sessionKey()]) >= MaxSessions:
		return nil, &Refusal{Reason: ReasonLimited, Client: g.Client, Detail: "too many unused sessions"}
	case len(r.grants) >= r.limit || most > 0 && r.methods[g.Method] >= most:
		return nil, &Refusal{Reason: ReasonLimited, Client: g.Client, Detail: "too many live grants"}
	default:
		rec = &record{Grant: g, at: r.table.tick(g.Expires)}
		r.grants[g.ID] = rec
		heap.Push(&r.expiry, rec)
	}
	r.methods[g.Method]++
	rec.next = r.targets[g.target()]
	r.targets[g.target()] = rec
	r.lengths[g.prefixLength()]++
	switch g.Scope {
	case ScopeAddress:
		r.table.put(g)
	case ScopeSession:
		if g.Uses == 0 {
			break // used up in a former life: it only keeps its window open
		}
		k := g.sessionKey()
		r.sessions[k] = append(r.sessions[k], g.ID)
		for _, w := range r.waiters[k] {
			select {
			case w <- struct{}{}:
			default:
			}
		}
	}
	return former, nil
}

// get finds a grant; nil if it is not there.
func (r *registry) get(id GrantID) *Grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.grants[id]; rec != nil {
		return rec.Grant
	}
	return nil
}

// remove takes a grant out; nil if it is not there.
func (r *registry) remove(id GrantID) *Grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removeLocked(id)
}

func (r *registry) removeLocked(id GrantID) *Grant {
	rec := r.grants[id]
	if rec == nil {
		return nil
	}
	heap.Remove(&r.expiry, rec.index)
	delete(r.grants, id)
	r.methods[rec.Method]--
	r.unlink(rec)
	if rec.Scope == ScopeAddress {
		r.table.remove(rec.Grant)
	}
	return rec.Grant
}

// unlink takes a grant out of the side indexes (not out of the table, where a
// replacement overwrites it, unless it moves to another prefix).
func (r *registry) unlink(rec *record) {
	g := rec.Grant
	switch first := r.targets[g.target()]; {
	case first != rec:
		for first.next != rec {
			first = first.next
		}
		first.next = rec.next
	case rec.next != nil:
		r.targets[g.target()] = rec.next
	default:
		delete(r.targets, g.target())
	}
	rec.next = nil
	if r.lengths[g.prefixLength()]--; r.lengths[g.prefixLength()] == 0 {
		delete(r.lengths, g.prefixLength())
	}
	if g.Scope == ScopeSession {
		dropID(r.sessions, g.sessionKey(), g.ID)
	}
}

func dropID(m map[sessionKey][]GrantID, key sessionKey, id GrantID) {
	ids := slices.DeleteFunc(m[key], func(other GrantID) bool { return other == id })
	if len(ids) == 0 {
		delete(m, key)
	} else {
		m[key] = ids
	}
}

// expired removes and returns the grants that are over.
func (r *registry) expired(now Tick) []*Grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	var over []*Grant
	for len(r.expiry) > 0 && r.expiry[0].at <= now {
		over = append(over, r.removeLocked(r.expiry[0].ID))
	}
	return over
}

// next is when the next grant may be over; ok is false if there is none.
func (r *registry) next() (at Tick, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.expiry) == 0 {
		return 0, false
	}
	return r.expiry[0].at, true
}

// windowEnd is until when the window of a prefix and service has to stay open:
// the latest expiry of the grants that want it, zero if there is none.
func (r *registry) windowEnd(t target) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.table.Now()
	var end time.Time
	for g := r.targets[t]; g != nil; g = g.next {
		if g.at > now && g.Expires.After(end) {
			end = g.Expires
		}
	}
	return end
}

// holds reports whether a grant for the service covers the address.
func (r *registry) holds(service string, addr netip.Addr, now Tick) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.lengths {
		if l.service != service || l.v4 != addr.Is4() {
			continue
		}
		prefix, _ := addr.Prefix(l.bits)
		for g := r.targets[target{prefix, service}]; g != nil; g = g.next {
			if g.at > now {
				return true
			}
		}
	}
	return false
}

func (r *registry) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.grants)
}

// list returns the grants that f accepts.
func (r *registry) list(f func(*Grant) bool) []*Grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []*Grant
	for _, rec := range r.grants {
		if f == nil || f(rec.Grant) {
			found = append(found, rec.Grant)
		}
	}
	return found
}

// takeSession uses up one connection of a session grant that fits: same client
// and service, an address it was made for, and the same session ID, or none in
// the knock. The grant is returned as it is afterwards.
func (r *registry) takeSession(k sessionKey, addr netip.Addr, session []byte, now Tick) *Grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.sessions[k] {
		g := r.grants[id]
		if g.at <= now || !g.Prefix.Contains(addr) {
			continue
		}
		if len(g.Session) > 0 && subtle.ConstantTimeCompare(g.Session, session) != 1 {
			continue
		}
		used := *g.Grant
		if g.Uses > 0 {
			used.Uses--
		}
		if used.Uses == 0 {
			// Used up: nobody may use it again, but it keeps its window open until
			// it expires or is closed.
			dropID(r.sessions, k, id)
		}
		g.Grant = &used
		return &used
	}
	return nil
}

// wait registers for a hint that a session may have come. The caller calls
// stop when done. It returns nil if too many wait for this client already.
func (r *registry) wait(k sessionKey, limit int) (woken <-chan struct{}, stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiters[k]) >= limit {
		return nil, nil
	}
	w := make(chan struct{}, 1)
	r.waiters[k] = append(r.waiters[k], w)
	return w, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		rest := slices.DeleteFunc(r.waiters[k], func(other chan struct{}) bool { return other == w })
		if len(rest) == 0 {
			delete(r.waiters, k)
		} else {
			r.waiters[k] = rest
		}
	}
}

type expiryHeap []*record

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].at < h[j].at }

func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *expiryHeap) Push(x any) {
	rec := x.(*record)
	rec.index = len(*h)
	*h = append(*h, rec)
}

func (h *expiryHeap) Pop() any {
	old := *h
	rec := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return rec
}
