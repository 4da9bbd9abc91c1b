// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func (g *guest) list() ([]knockcore.Window, error) {
	var windows []knockcore.Window
	seen := map[key]bool{}
	for _, s := range g.sets {
		var elems []nftables.SetElement
		now := time.Now() // before the kernel looked at its clock: rather too soon
		err := g.k.call(func(c *nftables.Conn) (err error) { elems, err = c.GetSetElements(s.set); return err })
		if err != nil {
			return nil, fmt.Errorf("reading set %s: %w", s.ref, err)
		}
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
