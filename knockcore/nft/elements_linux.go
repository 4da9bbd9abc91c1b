// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// readBackFrom is the size of a commit from which on it is read back.
const readBackFrom = 1000

// apply opens and closes windows in one transaction.
func (g *gate) apply(changes map[key]time.Time) error {
	if len(changes) == 0 {
		return nil
	}
	if err := g.makeGroups(changes); err != nil {
		return err
	}
	if err := g.k.commit(0, func(c *nftables.Conn) error { return g.moveElements(c, changes) }); err != nil {
		return err
	}
	for k, expires := range changes {
		if expires.IsZero() {
			delete(g.live, k)
			continue
		}
		g.live[k] = expires
	}
	if len(changes) >= readBackFrom {
		return g.readBack(changes)
	}
	return nil
}

// makeGroups installs sets for prefix lengths that come for the first time.
func (g *gate) makeGroups(changes map[key]time.Time) error {
	var added []group
	for k, expires := range changes {
		if grp := k.group(); !grp.isStandard() && !g.groups[grp] && !expires.IsZero() {
			g.groups[grp] = true
			added = append(added, grp)
		}
	}
	if len(added) == 0 {
		return nil
	}
	_, err := g.install(g.cfg, g.services)
	if err != nil {
		for _, grp := range added {
			delete(g.groups, grp)
		}
	}
	return err
}

// bySet divides the windows by the set that holds them.
func bySet(changes map[key]time.Time) map[group][]key {
	m := map[group][]key{}
	for k := range changes {
		m[k.group()] = append(m[k.group()], k)
	}
	return m
}

func (g group) set(table *nftables.Table) *nftables.Set {
	kind := kindAddr4
	if g.v6 {
		kind = kindAddr6
	}
	return setSpec{g.setName(), kind, ""}.set(table)
}

// moveElements writes the changes into a transaction: all elements are removed,
// then those that stay open are added with their time. Adding alone would not
// refresh an element that is there.
func (g *gate) moveElements(c *nftables.Conn, changes map[key]time.Time) error {
	now := time.Now()
	for grp, keys := range bySet(changes) {
		if !grp.isStandard() && !g.groups[grp] {
			continue // closes what never was open
		}
		set := grp.set(g.table())
		all := make([]nftables.SetElement, len(keys))
		var opened []nftables.SetElement
		for i, k := range keys {
			all[i] = nftables.SetElement{Key: k.prefix.Addr().AsSlice()}
			if expires := changes[k]; !expires.IsZero() {
				opened = append(opened, nftables.SetElement{Key: all[i].Key, Timeout: timeoutUntil(now, expires)})
			}
		}
		if err := removeElements(c, set, all, g.k.canDestroy()); err != nil {
			return err
		}
		if err := c.SetAddElements(set, opened); err != nil {
			return err
		}
	}
	return nil
}

// removeElements deletes elements that may be absent.
func removeElements(c *nftables.Conn, set *nftables.Set, elems []nftables.SetElement, canDestroy bool) error {
	if canDestroy {
		return c.SetDestroyElements(set, elems)
	}
	// Deleting what is absent fails, so make it present: nobody sees it.
	if err := c.SetAddElements(set, elems); err != nil {
		return err
	}
	return c.SetDeleteElements(set, elems)
}

// addElements writes windows into a transaction, into sets that do not hold them.
func (g *gate) addElements(c *nftables.Conn, windows map[key]time.Time) error {
	now := time.Now()
	for grp, keys := range bySet(windows) {
		elems := make([]nftables.SetElement, len(keys))
		for i, k := range keys {
			elems[i].Key = k.prefix.Addr().AsSlice()
			if expires := windows[k]; !expires.IsZero() {
				elems[i].Timeout = timeoutUntil(now, expires)
			}
		}
		if err := c.SetAddElements(grp.set(g.table()), elems); err != nil {
			return err
		}
	}
	return nil
}

// readBack makes sure that the kernel has what it took.
func (g *gate) readBack(changes map[key]time.Time) error {
	missing := map[key]bool{}
	for k, expires := range changes {
		if !expires.IsZero() {
			missing[k] = true
		}
	}
	windows, err := g.list()
	if err != nil {
		return err
	}
	for _, w := range windows {
		if k, err := keyOf(w); err == nil {
			delete(missing, k)
		}
	}
	now := time.Now()
	for k := range missing {
		if isOver(changes[k], now) {
			delete(missing, k)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %d of %d", ErrLost, len(missing), len(changes))
	}
	return nil
}

// list reads all windows.
func (g *gate) list() ([]knockcore.Window, error) {
	var windows []knockcore.Window
	for _, s := range g.services {
		groups := standard(s.Name)
		for grp := range g.groups {
			if grp.service == s.Name {
				groups = append(groups, grp)
			}
		}
		for _, grp := range groups {
			list, err := g.listGroup(grp)
			if err != nil {
				return nil, fmt.Errorf("reading set %s: %w", grp.setName(), err)
			}
			windows = append(windows, list...)
		}
	}
	return windows, nil
}

func (g *gate) listGroup(grp group) (windows []knockcore.Window, err error) {
	set := grp.set(g.table())
	seen := map[netip.Addr]bool{}
	add := func(e nftables.SetElement) {
		addr, ok := netip.AddrFromSlice(e.Key)
		w := knockcore.Window{Prefix: netip.PrefixFrom(addr, grp.bits), Service: grp.service}
		switch {
		case !ok || seen[addr] || e.Timeout != 0 && e.Expires == 0: // just over
			return
		case e.Timeout != 0:
			w.Expires = time.Now().Add(e.Expires)
		}
		seen[addr] = true
		windows = append(windows, w)
	}
	err = g.k.call(func(c *nftables.Conn) error {
		elems, err := c.GetSetElements(set)
		if err != nil {
			return err
		}
		windows = windows[:0]
		clear(seen)
		for _, e := range elems {
			add(e)
		}
		// While elements run out a dump can step over others: ask for those.
		now := time.Now()
		for k, expires := range g.live {
			if k.group() != grp || seen[k.prefix.Addr()] || isOver(expires, now) {
				continue
			}
			elems, err := c.FindSetElements(set, []nftables.SetElement{{Key: k.prefix.Addr().AsSlice()}})
			if ignoreAbsent(err) != nil {
				return err
			}
			for _, e := range elems {
				add(e)
			}
		}
		return nil
	})
	return windows, err
}

// adopt takes what is open for what should be.
func (g *gate) adopt() error {
	windows, err := g.list()
	if err != nil {
		return err
	}
	clear(g.live)
	for _, w := range windows {
		if k, err := keyOf(w); err == nil {
			g.live[k] = w.Expires
		}
	}
	for _, spec := range g.rs.sets {
		if spec.kind == kindConn4 || spec.kind == kindConn6 {
			if err := g.readKept(spec); err != nil {
				return err
			}
		}
	}
	return nil
}

// counts reads the counters of the services.
func (g *gate) counts() (map[string]Counts, error) {
	counts := map[string]Counts{}
	packets := map[string]uint64{}
	err := g.k.call(func(c *nftables.Conn) error {
		objects, err := c.GetNamedObjects(g.table())
		for _, o := range objects {
			if named, ok := o.(*nftables.NamedObj); ok {
				if counter, ok := named.Obj.(*expr.Counter); ok {
					packets[named.Name] = counter.Packets
				}
			}
		}
		return err
	})
	for _, s := range g.services {
		counts[s.Name] = Counts{Opened: packets[openCounter(s.Name)], Shut: packets[shutCounter(s.Name)]}
	}
	return counts, err
}
