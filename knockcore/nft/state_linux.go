// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// state is what the kernel has of our table.
type state struct {
	table    *nftables.Table // nil if there is none
	chains   map[string]*nftables.Chain
	sets     map[string]*nftables.Set
	counters map[string]bool
}

// ours reports whether the table carries our mark.
func (s *state) ours() bool { return s.sets[markerSet] != nil }

// readState reads everything but rules and elements.
func (k *kernel) readState(name string) (*state, error) {
	s := &state{chains: map[string]*nftables.Chain{}, sets: map[string]*nftables.Set{}, counters: map[string]bool{}}
	err := k.call(func(c *nftables.Conn) error {
		table, err := c.ListTableOfFamily(name, nftables.TableFamilyINet)
		if err != nil {
			return ignoreAbsent(err)
		}
		sets, err := c.GetSets(table)
		if err != nil {
			return ignoreAbsent(err)
		}
		chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
		if err != nil {
			return err
		}
		objects, err := c.GetNamedObjects(table)
		if err != nil {
			return ignoreAbsent(err)
		}
		for _, set := range sets {
			s.sets[set.Name] = set
		}
		for _, chain := range chains {
			if chain.Table.Name == name {
				s.chains[chain.Name] = chain
			}
		}
		for _, o := range objects {
			if named, ok := o.(*nftables.NamedObj); ok && named.Type == nftables.ObjTypeCounter {
				s.counters[named.Name] = true
			}
		}
		s.table = table
		return nil
	})
	return s, err
}

func ignoreAbsent(err error) error {
	if isAbsent(err) {
		return nil
	}
	return err
}

// ruleHandles lists the handles of the table's rules, by chain and in order.
// Handles are never used twice, so they tell whether the rules are those that
// were installed.
func (k *kernel) ruleHandles(table string) (handles map[string][]uint64, err error) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: []byte(table + "\x00")}})
	if err != nil {
		return nil, err
	}
	replies, err := k.ask(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return nil, err
	}
	handles = map[string][]uint64{}
	for _, m := range replies {
		if m.Header.Type != netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE) || len(m.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return nil, err
		}
		ad.ByteOrder = binary.BigEndian
		var in, chain string
		var handle uint64
		for ad.Next() {
			switch ad.Type() {
			case unix.NFTA_RULE_TABLE:
				in = ad.String()
			case unix.NFTA_RULE_CHAIN:
				chain = ad.String()
			case unix.NFTA_RULE_HANDLE:
				handle = ad.Uint64()
			}
		}
		if in == table {
			handles[chain] = append(handles[chain], handle)
		}
	}
	return handles, nil
}

// fits reports whether an existing set is as the specification wants it.
func (s setSpec) fits(table *nftables.Table, have *nftables.Set) bool {
	want := s.set(table)
	return have.KeyType.GetNFTMagic() == want.KeyType.GetNFTMagic() && have.HasTimeout == want.HasTimeout &&
		!have.Interval && !have.IsMap && !have.Constant && !have.Dynamic && have.Timeout == 0 && have.Size == 0
}

// fits reports whether an existing chain is as the specification wants it,
// apart from its rules.
func (c chain) fits(have *nftables.Chain) bool {
	want := c.chain(have.Table)
	if want.Hooknum == nil {
		return have.Hooknum == nil
	}
	return have.Hooknum != nil && *have.Hooknum == *want.Hooknum && have.Priority != nil && *have.Priority == *want.Priority &&
		have.Type == want.Type && (have.Policy == nil || *have.Policy == *want.Policy)
}

func (c chain) chain(table *nftables.Table) *nftables.Chain {
	out := &nftables.Chain{Table: table, Name: c.name}
	if c.hook == "" {
		return out
	}
	accept := nftables.ChainPolicyAccept
	out.Type, out.Policy = nftables.ChainTypeFilter, &accept
	out.Hooknum, out.Priority = nftables.ChainHookPrerouting, nftables.ChainPriorityRef(priority)
	if c.hook == HookInput {
		out.Hooknum = nftables.ChainHookInput
	}
	return out
}

// differs says in what the kernel's table is not the one that was installed, ""
// if it is.
func (rs *ruleset) differs(s *state, flags nftables.TableFlags, want, have map[string][]uint64) string {
	if s.table == nil {
		return "the table is gone"
	}
	if s.table.Flags != flags {
		return fmt.Sprintf("the table has flags %#x", s.table.Flags)
	}
	for _, set := range rs.sets {
		if got := s.sets[set.name]; got == nil || !set.fits(s.table, got) {
			return "set " + set.name + " is gone or changed"
		}
	}
	for _, c := range rs.chains {
		got := s.chains[c.name]
		switch {
		case got == nil:
			return "chain " + c.name + " is gone"
		case !c.fits(got):
			return "chain " + c.name + " was changed"
		case !slices.Equal(want[c.name], have[c.name]):
			return "the rules of chain " + c.name + " were changed"
		}
	}
	if len(s.chains) != len(rs.chains) {
		return "there is a chain that is not ours"
	}
	return ""
}

// add writes the whole table into a transaction, over what is there: rules are
// replaced, sets and counters that fit stay with what is in them. It returns the
// names of the sets that it makes, and the rules by chain.
func (rs *ruleset) add(c *nftables.Conn, s *state, flags nftables.TableFlags) (table *nftables.Table, made map[string]bool, rules map[string][]*nftables.Rule, err error) {
	table = c.AddTable(&nftables.Table{Name: rs.table, Family: nftables.TableFamilyINet, Flags: flags})
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
				return nil, nil, nil, err
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
				return nil, nil, nil, err
			}
			rules[ch.name] = append(rules[ch.name], out)
		}
	}
	return table, made, rules, nil
}

// markOwner writes into the marker who owns the table from now on, nobody for
// the zero process.
func markOwner(c *nftables.Conn, table *nftables.Table, p process) error {
	set := setSpec{markerSet, kindMark, markerComment}.set(table)
	c.FlushSet(set)
	if p == (process{}) {
		return nil
	}
	return c.SetAddElements(set, []nftables.SetElement{{Key: binaryutil.NativeEndian.PutUint32(p.pid), Comment: p.comment()}})
}
