// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"encoding/binary"
	"math/bits"
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
// It is an open-addressing hash table of immutable nodes, one per address or
// prefix. Readers load the table and a node by atomic pointers; a writer
// replaces the node, and the whole table when it gets full.
type Table struct {
	base time.Time // what Tick counts from
	seed uint64

	exact atomic.Pointer[nodeTable]
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
	tab  *nodeTable
}

type nodeTable struct {
	slots []atomic.Pointer[node]
	used  int // slots that hold a node, also one without entries; writers only
}

// node is immutable. A node without entries is a tombstone.
type node struct {
	addr    netip.Addr
	entries []entry
}

type entry struct {
	id      GrantID
	service Ref
	client  Ref
	expires Tick
}

// NewTable makes an empty table.
func NewTable() *Table {
	t := &Table{
		base: time.Now(), seed: rand.Uint64(),
		services: make(map[string]Ref), clients: make(map[string]Ref),
	}
	t.exact.Store(newNodeTable(16))
	t.wide.Store(new([]wideTable))
	return t
}

func newNodeTable(size int) *nodeTable {
	return &nodeTable{slots: make([]atomic.Pointer[node], size)}
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
	if t.exact.Load().find(addr, t.seed).allows(service, client, now) {
		return true
	}
	for _, w := range *t.wide.Load() {
		if w.v4 != addr.Is4() {
			continue
		}
		p, err := addr.Prefix(w.bits)
		if err == nil && w.tab.find(p.Addr(), t.seed).allows(service, client, now) {
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

func (n *node) allows(service, client Ref, now Tick) bool {
	if n == nil {
		return false
	}
	for i := range n.entries {
		e := &n.entries[i]
		if e.expires > now && (service == AnyRef || e.service == service) && (client == AnyRef || e.client == client) {
			return true
		}
	}
	return false
}

func hashAddr(addr netip.Addr, seed uint64) uint64 {
	b := addr.As16()
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(b[:8])^seed, binary.LittleEndian.Uint64(b[8:])^0x9e3779b97f4a7c15)
	hi, lo = bits.Mul64(hi^lo^seed, 0xd6e8feb86659fd93)
	return hi ^ lo
}

func (nt *nodeTable) find(addr netip.Addr, seed uint64) *node {
	mask := uint64(len(nt.slots) - 1)
	for i := hashAddr(addr, seed) & mask; ; i = (i + 1) & mask {
		n := nt.slots[i].Load()
		if n == nil || n.addr == addr {
			return n
		}
	}
}

// set stores the node, in place of one of the same address. The caller holds
// the table's lock and has made room.
func (nt *nodeTable) set(n *node, seed uint64) {
	mask := uint64(len(nt.slots) - 1)
	for i := hashAddr(n.addr, seed) & mask; ; i = (i + 1) & mask {
		switch old := nt.slots[i].Load(); {
		case old == nil:
			nt.used++
			nt.slots[i].Store(n)
			return
		case old.addr == n.addr:
			nt.slots[i].Store(n)
			return
		}
	}
}

// roomy returns the table itself if it has room for another node, otherwise a
// copy without the nodes that hold nothing any more.
func (nt *nodeTable) roomy(seed uint64, now Tick) *nodeTable {
	if (nt.used+1)*4 < len(nt.slots)*3 {
		return nt
	}
	var live []*node
	for i := range nt.slots {
		if n := nt.slots[i].Load(); n != nil && slices.ContainsFunc(n.entries, func(e entry) bool { return e.expires > now }) {
			live = append(live, n)
		}
	}
	size := 16
	for size < (len(live)+1)*2 {
		size *= 2
	}
	grown := newNodeTable(size)
	for _, n := range live {
		grown.set(n, seed)
	}
	return grown
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
		tables = append(tables, wideTable{bits: p.Bits(), v4: p.Addr().Is4(), tab: newNodeTable(16)})
		i = len(tables) - 1
	}
	tables[i].tab = tables[i].tab.roomy(t.seed, now)
	tables[i].tab.change(p.Addr(), t.seed, f)
	t.wide.Store(&tables)
}

func (nt *nodeTable) change(addr netip.Addr, seed uint64, f func([]entry) []entry) {
	var entries []entry
	if old := nt.find(addr, seed); old != nil {
		entries = slices.Clone(old.entries)
	}
	nt.set(&node{addr: addr, entries: slices.Clip(f(entries))}, seed)
}
