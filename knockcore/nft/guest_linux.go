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

const (
	// commentMark begins the comment of our elements.
	commentMark = "caddy-knock"
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
	if err := g.respect(next); err != nil {
		return err
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

// respect leaves out addresses that the operator has in a set for good: they are
// open, and would not be any more once our window ended.
func (g *guest) respect(addrs map[netip.Addr]map[string]time.Time) error {
	for addr := range addrs {
		if _, names := longest(g.live[addr], time.Now()); len(names) > 0 {
			continue // ours
		}
		for _, s := range g.sets {
			if s.v6 != addr.Is6() {
				continue
			}
			var elems []nftables.SetElement
			err := g.k.call(func(c *nftables.Conn) (err error) {
				elems, err = c.FindSetElements(s.set, []nftables.SetElement{{Key: addr.AsSlice()}})
				return ignoreAbsent(err)
			})
			if err != nil {
				return fmt.Errorf("reading set %s: %w", s.ref, err)
			}
			if len(elems) == 1 && elems[0].Timeout == 0 {
				delete(addrs, addr)
			}
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

func (g *guest) forget() {
	now := time.Now()
	for addr, services := range g.live {
		for name, expires := range services {
			if isOver(expires, now) || !g.services[name] {
				delete(services, name)
			}
		}
		if len(services) == 0 {
			delete(g.live, addr)
		}
	}
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

func (g *guest) port() uint32 { return g.k.port.Load() }

func (g *guest) close() { g.k.close() }
