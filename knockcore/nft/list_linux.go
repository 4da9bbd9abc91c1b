// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"fmt"
	"net/netip"
	"slices"
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
		keys = slices.DeleteFunc(keys, func(k key) bool { return changes[k].IsZero() })
		for some := range slices.Chunk(keys, readAtOnce) {
			absent, err := g.absent(set, some)
			if err != nil {
				return nil, fmt.Errorf("reading set %s: %w", set.Name, err)
			}
			for _, k := range absent {
				if !isOver(changes[k], time.Now()) {
					missing[k] = changes[k]
				}
			}
		}
	}
	return missing, nil
}

// readAtOnce is for how many elements the kernel is asked at once.
const readAtOnce = 128

// absent returns those of the keys that are not in the set. The kernel says no
// more than that one is absent, so then they are divided.
func (g *gate) absent(set *nftables.Set, keys []key) ([]key, error) {
	elems := make([]nftables.SetElement, len(keys))
	for i, k := range keys {
		elems[i].Key = k.prefix.Addr().AsSlice()
	}
	err := g.k.call(func(c *nftables.Conn) error {
		_, err := c.FindSetElements(set, elems)
		return err
	})
	if !isAbsent(err) {
		return nil, err
	}
	if len(keys) == 1 {
		return keys, nil
	}
	first, err := g.absent(set, keys[:len(keys)/2])
	if err != nil {
		return nil, err
	}
	rest, err := g.absent(set, keys[len(keys)/2:])
	return slices.Concat(first, rest), err
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
		if !s.Door {
			counts[s.Name] = Counts{Opened: packets[openCounter(s.Name)], Shut: packets[shutCounter(s.Name)]}
		}
	}
	if g.cfg.Bans != nil {
		counts[""] = Counts{Shut: packets[bannedCounter]}
	}
	return counts, err
}
