// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// state is what the kernel has of our table.
type state struct {
	table    *nftables.Table // nil if there is none
	handle   uint64          // of the table
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
	if err == nil && s.table != nil {
		s.handle, err = k.tableHandle(nftables.TableFamilyINet, name)
	}
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
	m := nfMessage(unix.NFT_MSG_GETRULE, nftables.TableFamilyINet, table)
	m.Header.Flags |= netlink.Dump
	replies, err := k.ask(m)
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
	out.Hooknum, out.Priority = nftables.ChainHookPrerouting, nftables.ChainPriorityRef(nftables.ChainPriority(c.priority))
	if c.hook == HookInput {
		out.Hooknum = nftables.ChainHookInput
	}
	return out
}

// differs says in what the kernel's table is not the one that was installed, ""
// if it is.
func (rs *ruleset) differs(s *state, handle uint64, flags nftables.TableFlags, want, have map[string][]uint64) string {
	if s.table == nil {
		return "the table is gone"
	}
	if s.handle != handle {
		return "the table was made anew"
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
