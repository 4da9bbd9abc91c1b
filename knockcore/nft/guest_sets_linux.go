// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

type guestSet struct {
	ref SetRef
	set *nftables.Set
	v6  bool
	// handles tell a set from a later one of the same name.
	handles [2]uint64
}

func (s *guestSet) family() nftables.TableFamily {
	switch s.ref.family() {
	case "ip":
		return nftables.TableFamilyIPv4
	case "ip6":
		return nftables.TableFamilyIPv6
	default:
		return nftables.TableFamilyINet
	}
}

// find looks the set up and checks that it can hold windows.
func (g *guest) find(s *guestSet) error {
	table := &nftables.Table{Name: s.ref.Table, Family: s.family()}
	err := g.k.call(func(c *nftables.Conn) error {
		set, err := c.GetSetByName(table, s.ref.Set)
		if err == nil {
			s.set = set
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("looking for set %s: %w", s.ref, err)
	}
	wants := "type ipv4_addr or ipv6_addr, and flag timeout alone"
	switch {
	case !s.set.HasTimeout, s.set.Interval, s.set.IsMap, s.set.Constant:
		return fmt.Errorf("set %s: %w: a set for windows has %s", s.ref, ErrSet, wants)
	case s.set.KeyType.GetNFTMagic() == nftables.TypeIPAddr.GetNFTMagic():
		s.v6 = false
	case s.set.KeyType.GetNFTMagic() == nftables.TypeIP6Addr.GetNFTMagic():
		s.v6 = true
	default:
		return fmt.Errorf("set %s: %w: it holds %s; a set for windows has %s", s.ref, ErrSet, s.set.KeyType.Name, wants)
	}
	s.handles, err = g.identify(s)
	return err
}

// identify asks for the handles of the table and the set, which together no
// other set ever has.
func (g *guest) identify(s *guestSet) (handles [2]uint64, err error) {
	if handles[0], err = g.k.tableHandle(s.family(), s.ref.Table); err != nil {
		return handles, err
	}
	b, err := g.k.askFor(nftaSetHandle, 8, nfMessage(unix.NFT_MSG_GETSET, s.family(), s.ref.Table, s.ref.Set))
	if err != nil {
		return handles, fmt.Errorf("looking for set %s: %w", s.ref, err)
	}
	handles[1] = binary.BigEndian.Uint64(b)
	return handles, nil
}

func (g *guest) concerns(family byte, table string) bool {
	return slices.ContainsFunc(g.sets, func(s *guestSet) bool { return byte(s.family()) == family && s.ref.Table == table })
}

func (g *guest) verify() (string, error) {
	if !g.ready {
		return "", ErrStopped
	}
	genID, err := g.k.generation()
	if err != nil || genID == g.verified {
		return "", err
	}
	for _, s := range g.sets {
		handles, err := g.identify(s)
		switch {
		case isAbsent(err):
			return "set " + s.ref.String() + " is gone", nil
		case err != nil:
			return "", err
		case handles != s.handles:
			return "set " + s.ref.String() + " was made anew", nil
		}
	}
	g.verified = genID
	return "", nil
}
