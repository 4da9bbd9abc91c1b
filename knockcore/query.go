// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"net/netip"
	"sync/atomic"
)

// Query asks a Table whether an address is in, for any of some services and by
// any of some clients. It is safe for concurrent use.
type Query struct {
	services, clients []string
	refs              atomic.Pointer[queryRefs]
}

// queryRefs are the names as one table knows them.
type queryRefs struct {
	table             *Table
	services, clients []Ref
}

// NewQuery makes a query; no names mean whichever.
func NewQuery(services, clients []string) *Query {
	return &Query{services: services, clients: clients}
}

// Match reports whether the address holds such a grant now. It takes no lock
// and allocates nothing, but for the first look at a table.
func (q *Query) Match(t *Table, addr netip.Addr) bool {
	refs := q.refs.Load()
	if refs == nil || refs.table != t {
		refs = &queryRefs{t, makeRefs(q.services, t.ServiceRef), makeRefs(q.clients, t.ClientRef)}
		q.refs.Store(refs)
	}
	now := t.Now()
	for _, service := range refs.services {
		for _, client := range refs.clients {
			if t.Allowed(addr, service, client, now) {
				return true
			}
		}
	}
	return false
}

func makeRefs(names []string, ref func(string) Ref) []Ref {
	if len(names) == 0 {
		return []Ref{AnyRef}
	}
	refs := make([]Ref, len(names))
	for i, name := range names {
		refs[i] = ref(name)
	}
	return refs
}
