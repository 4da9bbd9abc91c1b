// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"net/netip"
	"slices"
)

// Query asks a Table whether an address is in, for any of some services and by
// any of some clients. It is safe for concurrent use.
type Query struct{ services, clients []string }

// NewQuery makes a query; no names mean whichever.
func NewQuery(services, clients []string) *Query { return &Query{services, clients} }

// Match reports whether the address holds such a grant now. It takes no lock and
// allocates nothing. An IPv4-mapped address is looked up as IPv4; zones do not
// matter.
func (q *Query) Match(t *Table, addr netip.Addr) bool { return t.allows(addr, q) }

// fits reports whether a grant of this holder is meant.
func (q *Query) fits(h *holder) bool {
	return (len(q.services) == 0 || slices.Contains(q.services, h.service)) &&
		(len(q.clients) == 0 || slices.Contains(q.clients, h.client))
}
