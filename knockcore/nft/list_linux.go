// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// list reads all windows.
func (g *gate) list() ([]knockcore.Window, error) {
	var windows []knockcore.Window
	live := bySet(g.live)
	for _, s := range g.services {
		groups := standard(s.Name)
		for grp := range g.groups {
			if grp.service == s.Name {
				groups = append(groups, grp)
			}
		}
		for _, grp := range groups {
			list, err := g.listGroup(grp, live[grp])
			if err != nil {
				return nil, fmt.Errorf("reading set %s: %w", grp.setName(), err)
			}
			windows = append(windows, list...)
		}
	}
	return windows, nil
}

// listGroup reads the windows of one set; live are those that should be there.
func (g *gate) listGroup(grp group, live []key) (windows []knockcore.Window, err error) {
	set := grp.set(g.table())
	seen := map[netip.Addr]bool{}
	var asked time.Time // before the kernel looked at its clock: rather too soon
	add := func(e nftables.SetElement) {
		addr, ok := netip.AddrFromSlice(e.Key)
		w := knockcore.Window{Prefix: netip.PrefixFrom(addr, grp.bits), Service: grp.service}
		switch {
		case !ok || seen[addr] || e.Timeout != 0 && e.Expires == 0: // just over
			return
		case e.Timeout != 0:
			w.Expires = asked.Add(e.Expires)
		}
		seen[addr] = true
		windows = append(windows, w)
	}
	err = g.k.call(func(c *nftables.Conn) error {
		asked = time.Now()
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
		for _, k := range live {
			if seen[k.prefix.Addr()] || isOver(g.live[k], now) {
				continue
			}
			asked = time.Now()
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

// readBack returns those of the windows just opened that the kernel, though it
// took them, does not have.
func (g *gate) readBack(changes map[key]time.Time) (map[key]time.Time, error) {
	missing := map[key]time.Time{}
	for grp, keys := range bySet(changes) {
		set := grp.set(g.table())
		for _, k := range keys {
			if changes[k].IsZero() {
				continue
			}
			err := g.k.call(func(c *nftables.Conn) error {
				_, err := c.FindSetElements(set, []nftables.SetElement{{Key: k.prefix.Addr().AsSlice()}})
				return err
			})
			switch {
			case err == nil:
			case !isAbsent(err):
				return nil, fmt.Errorf("reading set %s: %w", set.Name, err)
			case !isOver(changes[k], time.Now()):
				missing[k] = changes[k]
			}
		}
	}
	return missing, nil
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
