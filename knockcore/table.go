// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Table answers whether an address is in: for one service or any, by one client
// or any. Look-ups take no lock and allocate nothing; changes are serialised.
//
// Addresses are in one flat hash table, prefixes in one for each length in use. A
// writer replaces a table when it gets full.
type Table struct {
	base time.Time // what Tick counts from
	seed uint64

	exact atomic.Pointer[slots]
	wide  atomic.Pointer[[]wideTable] // one per prefix length in use

	mu       sync.Mutex
	services map[string]Ref
	clients  map[string]Ref
}

// Ref is a short name for a service or client in a Table, made by ServiceRef
// and ClientRef. AnyRef stands for all of them.
type Ref uint32

// AnyRef matches every service or every client.
const AnyRef Ref = 0

// Tick is a point of the monotonic clock: nanoseconds since the table was made.
type Tick int64

type wideTable struct {
	bits int // of the prefix; IPv4 and IPv6 are told apart by v4
	v4   bool
	tab  *slots
}

// NewTable makes an empty table.
func NewTable() *Table {
	t := &Table{
		base: time.Now(), seed: rand.Uint64(),
		services: make(map[string]Ref), clients: make(map[string]Ref),
	}
	t.exact.Store(newSlots(16))
	t.wide.Store(new([]wideTable))
	return t
}

// Now is the present point of the monotonic clock.
func (t *Table) Now() Tick { return Tick(time.Since(t.base)) }

// tick converts a time, by its monotonic reading if it has one.
func (t *Table) tick(at time.Time) Tick { return Tick(at.Sub(t.base)) }

// ServiceRef returns the Ref of a service name. A table keeps the names it was
// asked for: they come from configuration, never from the wire.
func (t *Table) ServiceRef(name string) Ref { return t.ref(t.services, name) }

// ClientRef returns the Ref of a client ID, likewise.
func (t *Table) ClientRef(id string) Ref { return t.ref(t.clients, id) }

func (t *Table) ref(names map[string]Ref, name string) Ref {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := names[name]
	if !ok {
		r = Ref(len(names) + 1)
		names[name] = r
	}
	return r
}

// Allowed reports whether the address holds a grant at this time, for the
// service and by the client asked for (AnyRef: whichever). An IPv4-mapped
// address is looked up as IPv4; zones do not matter.
func (t *Table) Allowed(addr netip.Addr, service, client Ref, now Tick) bool {
	if addr = plain(addr); !addr.IsValid() {
		return false
	}
	if t.exact.Load().find(keyOf(addr), t.seed).allows(service, client, now) {
		return true
	}
	for _, w := range *t.wide.Load() {
		if w.v4 != addr.Is4() {
			continue
		}
		p, err := addr.Prefix(w.bits)
		if err == nil && w.tab.find(keyOf(p.Addr()), t.seed).allows(service, client, now) {
			return true
		}
	}
	return false
}

func plain(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if addr.Zone() != "" {
		addr = addr.WithZone("")
	}
	return addr
}

// put enters a grant of address scope, or replaces it if its ID is there.
func (t *Table) put(g *Grant) {
	service, client := t.ServiceRef(g.Service), t.ClientRef(g.Client)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change(g.Prefix, func(entries []entry) []entry {
		return append(slices.DeleteFunc(entries, func(e entry) bool { return e.id == g.ID }),
			entry{g.ID, service, client, t.tick(g.Expires)})
	})
}

// remove takes a grant out.
func (t *Table) remove(g *Grant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change(g.Prefix, func(entries []entry) []entry {
		return slices.DeleteFunc(entries, func(e entry) bool { return e.id == g.ID })
	})
}

// change replaces the entries of a prefix by what f makes of a copy of them.
func (t *Table) change(p netip.Prefix, f func([]entry) []entry) {
	now := t.Now()
	if p.IsSingleIP() {
		nt := t.exact.Load().roomy(t.seed, now)
		nt.change(p.Addr(), t.seed, f)
		t.exact.Store(nt)
		return
	}
	tables := slices.Clone(*t.wide.Load())
	i := slices.IndexFunc(tables, func(w wideTable) bool { return w.bits == p.Bits() && w.v4 == p.Addr().Is4() })
	if i < 0 {
		tables = append(tables, wideTable{bits: p.Bits(), v4: p.Addr().Is4(), tab: newSlots(16)})
		i = len(tables) - 1
	}
	tables[i].tab = tables[i].tab.roomy(t.seed, now)
	tables[i].tab.change(p.Addr(), t.seed, f)
	t.wide.Store(&tables)
}
