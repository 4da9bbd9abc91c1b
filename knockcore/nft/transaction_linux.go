// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"slices"

	"github.com/google/nftables"
)

// add writes the whole table into a transaction, over what is there: rules are
// replaced, sets and counters that fit stay with what is in them. It returns the
// names of the sets that it makes, and the rules by chain.
func (rs *ruleset) add(c *nftables.Conn, s *state, table *nftables.Table, flags nftables.TableFlags) (made map[string]bool, rules map[string][]*nftables.Rule, err error) {
	c.AddTable(&nftables.Table{Name: table.Name, Family: table.Family, Flags: flags})
	made, rules = map[string]bool{}, map[string][]*nftables.Rule{}
	if s.table != nil {
		c.FlushTable(table) // all rules, and with them what they refer to
	}
	stay := map[string]bool{}
	for _, ch := range rs.chains {
		if have := s.chains[ch.name]; have != nil && ch.fits(have) {
			stay[ch.name] = true
		}
	}
	for name := range s.chains {
		if !stay[name] {
			c.DelChain(&nftables.Chain{Table: table, Name: name})
		}
	}
	wanted := map[string]setSpec{}
	for _, set := range rs.sets {
		wanted[set.name] = set
	}
	for name, have := range s.sets {
		if spec, ok := wanted[name]; !have.Anonymous && (!ok || !spec.fits(table, have)) {
			c.DelSet(&nftables.Set{Table: table, Name: name})
		}
	}
	for name := range s.counters {
		if !slices.Contains(rs.counters, name) {
			c.DeleteObject(&nftables.CounterObj{Table: table, Name: name})
		}
	}

	for _, name := range rs.counters {
		if !s.counters[name] {
			c.AddObj(&nftables.CounterObj{Table: table, Name: name})
		}
	}
	for _, set := range rs.sets {
		if have := s.sets[set.name]; have == nil || !set.fits(table, have) {
			made[set.name] = true
			if err := c.AddSet(set.set(table), nil); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, ch := range rs.chains {
		if !stay[ch.name] {
			c.AddChain(ch.chain(table))
		}
	}
	enc := encoder{c, table}
	for _, ch := range rs.chains {
		for _, r := range ch.rules {
			out, err := enc.rule(&nftables.Chain{Table: table, Name: ch.name}, r)
			if err != nil {
				return nil, nil, err
			}
			rules[ch.name] = append(rules[ch.name], out)
		}
	}
	return made, rules, nil
}

// markOwner writes into the marker who owns the table from now on, nobody for
// the zero process.
func markOwner(c *nftables.Conn, table *nftables.Table, p process) error {
	set := setSpec{markerSet, kindMark, markerComment}.set(table)
	c.FlushSet(set)
	if p == (process{}) {
		return nil
	}
	return c.SetAddElements(set, []nftables.SetElement{{Key: nativeU32(p.pid), Comment: p.comment()}})
}
