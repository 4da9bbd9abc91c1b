// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"fmt"
	"time"

	"github.com/google/nftables"
)

// readBackFrom is how many windows make a commit worth reading back.
const readBackFrom = 1000

// apply opens and closes windows in one transaction.
func (g *gate) apply(changes map[key]time.Time) error {
	if err := g.makeGroups(changes); err != nil {
		return err
	}
	if err := g.send(changes); err != nil || len(changes) < readBackFrom {
		return err
	}
	missing, err := g.readBack(changes)
	if err != nil || len(missing) == 0 {
		return err
	}
	if err := g.send(missing); err != nil {
		return err
	}
	if missing, err = g.readBack(missing); err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: %d of %d", ErrLost, len(missing), len(changes))
	}
	return err
}

// send commits the changes and remembers them.
func (g *gate) send(changes map[key]time.Time) error {
	if len(changes) == 0 {
		return nil
	}
	if err := g.k.commit(0, func(c *nftables.Conn) error { return g.moveElements(c, changes) }); err != nil {
		return err
	}
	for k, expires := range changes {
		delete(g.missing, k)
		if expires.IsZero() {
			delete(g.live, k)
			continue
		}
		g.live[k] = expires
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
			elems[i].Timeout = timeoutUntil(now, windows[k])
		}
		if err := c.SetAddElements(grp.set(g.table()), elems); err != nil {
			return err
		}
	}
	return nil
}
