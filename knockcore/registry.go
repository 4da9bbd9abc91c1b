// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"container/heap"
	"crypto/subtle"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// MaxSessions is how many unused sessions one client may hold for one service.
const MaxSessions = 64

// registry holds the live grants of address and session scope, and finds them by ID,
// by prefix (in the table) and by expiry. It keeps records: the Grants that it gives
// away are made for that, and nobody else's.
type registry struct {
	table *Table
	limit int // grants

	mu       sync.Mutex
	set      grantSet
	sessions map[sessionKey][]GrantID // session scope, oldest first
	waiters  map[sessionKey][]chan struct{}
	expiry   []uint32         // numbers of grants, as a heap
	methods  [methodCount]int // grants by method
	clients  map[string]int   // grants by client
}

// bounds are those of a put: how many grants there may be of the method, and of the
// client. 0 means no bound.
type bounds struct{ method, client int }

// target is what a window is: a prefix and a service.
type target struct {
	prefix  netip.Prefix
	service string
}

type sessionKey struct{ client, service string }

func newRegistry(table *Table, limit int) *registry {
	return &registry{
		table:    table,
		limit:    limit,
		set:      newGrantSet(table.holders),
		sessions: make(map[sessionKey][]GrantID),
		waiters:  make(map[sessionKey][]chan struct{}),
		clients:  make(map[string]int),
	}
}

func (g *Grant) target() target { return target{g.Prefix, g.Service} }

func (g *Grant) sessionKey() sessionKey { return sessionKey{g.Client, g.Service} }

// waits reports whether the grant is a session that a frame may use. One that was
// used up, maybe in a former life, only keeps its window open.
func (g *Grant) waits() bool { return g.Scope == ScopeSession && g.Uses != 0 }

// put enters a grant. A grant of address scope that equals another one (client,
// service, prefix) takes its place and its ID: the knock that came last decides
// how long. Another one without an ID gets one. The former grant is returned, nil if
// there was none. What takes the place of another is not bounded.
func (r *registry) put(g *Grant, most bounds) (former *Grant, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	holder := r.table.holders.number(holder{g.Service, g.Client})
	if g.Scope == ScopeAddress {
		for n := range r.table.of(g.Prefix) {
			if equal := r.set.at(n); equal.scope == ScopeAddress && equal.holder == holder {
				g.ID = equal.id
			}
		}
	}
	if g.ID == (GrantID{}) {
		g.ID = NewGrantID()
	}
	n, known := r.set.numbers[g.ID]
	switch {
	case known:
		former = r.set.grant(n)
		r.count(former, -1)
		if former.Scope == ScopeSession {
			dropID(r.sessions, former.sessionKey(), g.ID)
		}
	case g.waits() && len(r.sessions[g.sessionKey()]) >= MaxSessions:
		return nil, &Refusal{Reason: ReasonLimited, Client: g.Client, Detail: "too many unused sessions"}
	case most.client > 0 && r.clients[g.Client] >= most.client:
		return nil, &Refusal{Reason: ReasonLimited, Client: g.Client, Detail: fmt.Sprintf("the client has %d live grants, the most that max_grants allows it", r.clients[g.Client])}
	case r.set.len() >= r.limit || most.method > 0 && r.methods[g.Method] >= most.method:
		return nil, &Refusal{Reason: ReasonLimited, Client: g.Client, Detail: "too many live grants"}
	}
	n = r.set.putOf(holder, g)
	r.count(g, 1)
	until := Tick(0)
	if g.Scope == ScopeAddress {
		until = r.table.tick(g.Expires)
	}
	switch {
	case !known:
		r.table.add(g.Prefix, holder, n, until)
		heap.Push(byExpiry{r}, n)
	case former.target() == g.target() && former.Client == g.Client:
		r.table.renew(g.Prefix, n, until)
		heap.Fix(byExpiry{r}, int(r.set.at(n).place))
	default:
		r.table.remove(former.Prefix, n)
		r.table.add(g.Prefix, holder, n, until)
		heap.Fix(byExpiry{r}, int(r.set.at(n).place))
	}
	if g.waits() {
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

// count counts a grant that came or went.
func (r *registry) count(g *Grant, by int) {
	r.methods[g.Method] += by
	if r.clients[g.Client] += by; r.clients[g.Client] == 0 {
		delete(r.clients, g.Client)
	}
}

// get finds a grant; nil if it is not there.
func (r *registry) get(id GrantID) *Grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n, ok := r.set.numbers[id]; ok {
		return r.set.grant(n)
	}
	return nil
}

// remove takes a grant out; nil if it is not there.
func (r *registry) remove(id GrantID) *Grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n, ok := r.set.numbers[id]; ok {
		return r.removeLocked(n)
	}
	return nil
}

func (r *registry) removeLocked(n uint32) *Grant {
	g := r.set.grant(n)
	heap.Remove(byExpiry{r}, int(r.set.at(n).place))
	r.count(g, -1)
	r.table.remove(g.Prefix, n)
	if g.Scope == ScopeSession {
		dropID(r.sessions, g.sessionKey(), g.ID)
	}
	r.set.remove(g.ID)
	return g
}

func dropID(m map[sessionKey][]GrantID, key sessionKey, id GrantID) {
	ids := slices.DeleteFunc(m[key], func(other GrantID) bool { return other == id })
	if len(ids) == 0 {
		delete(m, key)
	} else {
		m[key] = ids
	}
}

// at is the end of a grant.
func (r *registry) at(n uint32) Tick { return r.table.tick(r.set.at(n).expires) }

// expired removes and returns the grants that are over.
func (r *registry) expired(now Tick) []*Grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	var over []*Grant
	for len(r.expiry) > 0 && r.at(r.expiry[0]) <= now {
		over = append(over, r.removeLocked(r.expiry[0]))
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
	return r.at(r.expiry[0]), true
}

// windowEnd is until when the window of a prefix and service has to stay open:
// the latest expiry of the grants that want it, zero if there is none.
func (r *registry) windowEnd(t target) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.table.Now()
	var end time.Time
	for n := range r.table.of(t.prefix) {
		if g := r.set.at(n); r.table.holders.of(g.holder).service == t.service && r.at(n) > now && g.expires.After(end) {
			end = g.expires
		}
	}
	return end
}

// holds reports whether a grant for the service covers the address.
func (r *registry) holds(service string, addr netip.Addr, now Tick) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range r.table.on(addr) {
		if r.table.holders.of(r.set.at(n).holder).service == service && r.at(n) > now {
			return true
		}
	}
	return false
}

func (r *registry) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set.len()
}

// each calls f with some grants at a time, which are not its to keep. The registry is
// not locked while f runs, and never for longer than one chunk takes to be copied, so
// that knocks don't wait for listings. A grant that is live from the beginning to the
// end is told exactly once; one that is made or ends meanwhile may be.
func (r *registry) each(f func([]Grant)) {
	buffer := make([]Grant, 0, chunkLen)
	copied := func(n int) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if n >= len(r.set.chunks) {
			return false
		}
		buffer = r.set.chunk(n, buffer[:0])
		return true
	}
	for n := 0; copied(n); n++ {
		f(buffer)
	}
}

// list returns the grants that f accepts (nil: all), as each tells them.
func (r *registry) list(f func(*Grant) bool) (found []*Grant) {
	r.each(func(grants []Grant) { found = accepted(found, grants, f) })
	return found
}

// listOf is list for the grants of exactly this prefix.
func (r *registry) listOf(p netip.Prefix, f func(*Grant) bool) (found []*Grant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range r.table.of(p) {
		if g := r.set.grant(n); f(g) {
			found = append(found, g)
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
		n := r.set.numbers[id]
		g := r.set.grant(n)
		if r.at(n) <= now || !g.Prefix.Contains(addr) {
			continue
		}
		if len(g.Session) > 0 && g.Device() == "" && subtle.ConstantTimeCompare(g.Session, session) != 1 {
			continue
		}
		if g.Uses > 0 {
			g.Uses--
		}
		if g.Uses == 0 {
			// Used up: nobody may use it again, but it keeps its window open until
			// it expires or is closed.
			dropID(r.sessions, k, id)
		}
		r.set.put(g)
		return g
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

// byExpiry is the registry's heap of expiry.
type byExpiry struct{ *registry }

func (h byExpiry) Len() int           { return len(h.expiry) }
func (h byExpiry) Less(i, j int) bool { return h.at(h.expiry[i]) < h.at(h.expiry[j]) }

func (h byExpiry) Swap(i, j int) {
	h.expiry[i], h.expiry[j] = h.expiry[j], h.expiry[i]
	h.set.at(h.expiry[i]).place, h.set.at(h.expiry[j]).place = uint32(i), uint32(j)
}

func (h byExpiry) Push(x any) {
	n := x.(uint32)
	h.set.at(n).place = uint32(len(h.expiry))
	h.expiry = append(h.expiry, n)
}

func (h byExpiry) Pop() any {
	last := h.expiry[len(h.expiry)-1]
	h.expiry = h.expiry[:len(h.expiry)-1]
	return last
}
