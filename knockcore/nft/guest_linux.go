// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// guest is the keeper of elements in sets of the operator's. There an address is
// open or not, whatever the service: an element lives as long as the longest
// window of its address, and its comment names the services.
type guest struct {
	k        kernel
	sets     []*guestSet
	services map[string]bool
	live     map[netip.Addr]map[string]time.Time
	verified uint32
	ready    bool
}

type guestSet struct {
	ref    SetRef
	set    *nftables.Set
	v6     bool
	handle uint64 // tells a set from a later one of the same name
}

const (
	// commentMark begins the comment of our elements.
	commentMark = "caddy-knock"
	// nftaSetHandle is NFTA_SET_HANDLE, which x/sys/unix lacks.
	nftaSetHandle = 16
	// maxComment is the longest comment that nft itself writes.
	maxComment = 128
)

func newGuest(cfg Config) *guest {
	g := &guest{k: kernel{netns: cfg.NetNS}, live: map[netip.Addr]map[string]time.Time{}}
	for _, ref := range cfg.Sets {
		g.sets = append(g.sets, &guestSet{ref: ref})
	}
	return g
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
	err := g.k.call(func(c *nftables.Conn) (err error) {
		s.set, err = c.GetSetByName(table, s.ref.Set)
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
	s.handle, err = g.k.setHandle(s.family(), s.ref)
	return err
}

// install finds the sets and puts all live windows into them.
func (g *guest) install(_ Config, services []*knockcore.Service) (restored int, err error) {
	for _, s := range g.sets {
		if err := g.find(s); err != nil {
			return 0, err
		}
	}
	g.services = map[string]bool{}
	for _, s := range services {
		g.services[s.Name] = true
	}
	g.verified, g.ready = 0, true
	all := map[netip.Addr]map[string]time.Time{}
	for addr, services := range g.live {
		all[addr] = services
		restored += len(services)
	}
	return restored, g.write(all)
}

func (g *guest) apply(changes map[key]time.Time) error {
	next := map[netip.Addr]map[string]time.Time{}
	for k, expires := range changes {
		addr := k.prefix.Addr()
		if !k.group().exact() {
			if expires.IsZero() {
				continue
			}
			return fmt.Errorf("window of %v: %w: sets of yours hold single addresses", k.prefix, ErrSet)
		}
		if next[addr] == nil {
			next[addr] = map[string]time.Time{}
			for service, until := range g.live[addr] {
				next[addr][service] = until
			}
		}
		if next[addr][k.service] = expires; expires.IsZero() {
			delete(next[addr], k.service)
		}
	}
	if err := g.write(next); err != nil {
		return err
	}
	for addr, services := range next {
		if g.live[addr] = services; len(services) == 0 {
			delete(g.live, addr)
		}
	}
	return nil
}

// write makes the elements of the addresses what their windows need.
func (g *guest) write(addrs map[netip.Addr]map[string]time.Time) error {
	if len(addrs) == 0 {
		return nil
	}
	return g.k.commit(0, func(c *nftables.Conn) error {
		now := time.Now()
		old, opened := map[bool][]nftables.SetElement{}, map[bool][]nftables.SetElement{}
		for addr, services := range addrs {
			until, names := longest(services, now)
			e := nftables.SetElement{Key: addr.AsSlice()}
			old[addr.Is6()] = append(old[addr.Is6()], e)
			if len(names) > 0 {
				e.Timeout, e.Comment = timeoutUntil(now, until), comment(names)
				opened[addr.Is6()] = append(opened[addr.Is6()], e)
			}
		}
		for _, v6 := range []bool{false, true} {
			i := slices.IndexFunc(g.sets, func(s *guestSet) bool { return s.v6 == v6 })
			if i < 0 {
				if len(opened[v6]) > 0 {
					return fmt.Errorf("%w: none of your sets holds %s addresses", ErrSet, map[bool]string{false: "IPv4", true: "IPv6"}[v6])
				}
				continue
			}
			for _, s := range g.sets[i:] {
				if s.v6 != v6 {
					continue
				}
				if err := removeElements(c, s.set, old[v6], g.k.canDestroy()); err != nil {
					return err
				}
				if err := c.SetAddElements(s.set, opened[v6]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// longest is the end of the last window, and the services that have one.
func longest(services map[string]time.Time, now time.Time) (until time.Time, names []string) {
	for service, expires := range services {
		if isOver(expires, now) {
			continue
		}
		names = append(names, service)
		if expires.After(until) {
			until = expires
		}
	}
	slices.Sort(names)
	return until, names
}

// comment names the services, as many as fit.
func comment(services []string) string {
	s := commentMark
	for _, name := range services {
		if len(s)+1+len(name) < maxComment {
			s += " " + name
		}
	}
	return s
}

func (g *guest) list() ([]knockcore.Window, error) {
	var windows []knockcore.Window
	seen := map[key]bool{}
	for _, s := range g.sets {
		var elems []nftables.SetElement
		err := g.k.call(func(c *nftables.Conn) (err error) { elems, err = c.GetSetElements(s.set); return err })
		if err != nil {
			return nil, fmt.Errorf("reading set %s: %w", s.ref, err)
		}
		now := time.Now()
		for _, e := range elems {
			mark, names, _ := strings.Cut(e.Comment, " ")
			addr, ok := netip.AddrFromSlice(e.Key)
			if !ok || mark != commentMark || e.Expires == 0 {
				continue
			}
			for _, service := range strings.Fields(names) {
				w := knockcore.Window{Prefix: netip.PrefixFrom(addr, addr.BitLen()), Service: service, Expires: now.Add(e.Expires)}
				if until, known := g.live[addr][service]; known && until.Before(w.Expires) {
					w.Expires = until
				}
				k := key{service, w.Prefix}
				if g.services[service] && !seen[k] && w.Expires.After(now) {
					seen[k] = true
					windows = append(windows, w)
				}
			}
		}
	}
	return windows, nil
}

func (g *guest) adopt() error {
	windows, err := g.list()
	if err != nil {
		return err
	}
	clear(g.live)
	for _, w := range windows {
		addr := w.Prefix.Addr()
		if g.live[addr] == nil {
			g.live[addr] = map[string]time.Time{}
		}
		g.live[addr][w.Service] = w.Expires
	}
	return nil
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
		handle, err := g.k.setHandle(s.family(), s.ref)
		switch {
		case isAbsent(err):
			return "set " + s.ref.String() + " is gone", nil
		case err != nil:
			return "", err
		case handle != s.handle:
			return "set " + s.ref.String() + " was made anew", nil
		}
	}
	g.verified = genID
	return "", nil
}

func (g *guest) counts() (map[string]Counts, error) { return map[string]Counts{}, nil }

func (g *guest) stop(mode knockcore.ExitMode) error {
	if mode == knockcore.ExitKeep || !g.ready {
		return nil
	}
	none := map[netip.Addr]map[string]time.Time{}
	for addr := range g.live {
		none[addr] = nil
	}
	return ignoreAbsent(g.write(none))
}

func (g *guest) concerns(family byte, table string) bool {
	return slices.ContainsFunc(g.sets, func(s *guestSet) bool { return byte(s.family()) == family && s.ref.Table == table })
}

func (g *guest) port() uint32 { return g.k.port.Load() }

func (g *guest) close() { g.k.close() }

// setHandle asks for the handle of a set, which no other ever has.
func (k *kernel) setHandle(family nftables.TableFamily, ref SetRef) (handle uint64, err error) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_TABLE, Data: []byte(ref.Table + "\x00")},
		{Type: unix.NFTA_SET_NAME, Data: []byte(ref.Set + "\x00")},
	})
	if err != nil {
		return 0, err
	}
	replies, err := k.ask(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSET), Flags: netlink.Request},
		Data:   append([]byte{byte(family), unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return 0, fmt.Errorf("looking for set %s: %w", ref, err)
	}
	for _, m := range replies {
		ad, err := netlink.NewAttributeDecoder(m.Data[min(4, len(m.Data)):])
		if err != nil {
			return 0, err
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == nftaSetHandle {
				return ad.Uint64(), nil
			}
		}
	}
	return 0, fmt.Errorf("looking for set %s: %w", ref, unix.ENOENT)
}
