// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"fmt"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// take makes sure that no other engine of this process keeps the table.
func (g *gate) take() error {
	if g.claimed {
		return nil
	}
	c, err := claimOf(g.k.netns, g.name)
	if err != nil {
		return err
	}
	if _, taken := claims.LoadOrStore(c, g); taken {
		return fmt.Errorf("table %s: %w in this process", g.name, ErrBusy)
	}
	g.claim, g.claimed = c, true
	return nil
}

// mayChange refuses tables that are not ours, or not ours alone.
func (g *gate) mayChange(st *state) error {
	if st.table == nil {
		return nil
	}
	name := g.name
	if !st.ours() {
		return fmt.Errorf("table inet %s: %w: choose another name, or remove it with `nft delete table inet %s`", name, ErrForeign, name)
	}
	owners, err := g.k.owners(st.table)
	if err != nil && !isAbsent(err) {
		return fmt.Errorf("reading the owner of table %s: %w", name, err)
	}
	for _, p := range owners {
		if p != g.self && p.alive() {
			return fmt.Errorf("table inet %s: %w: process %d; give one of them another table", name, ErrBusy, p.pid)
		}
	}
	return nil
}

// knownGroup tells which windows a set of one of our services holds.
func (g *gate) knownGroup(set string) (group, bool) {
	grp, ok := groupOfSet(set)
	if !ok {
		return grp, false
	}
	for _, s := range g.services {
		if token(s.Name) == grp.service {
			grp.service = s.Name
			return grp, true
		}
	}
	return grp, false
}

// rescue takes over windows and connections from a table that will be replaced.
func (g *gate) rescue(st *state) error {
	for name := range st.sets {
		grp, ok := g.knownGroup(name)
		if !ok {
			continue
		}
		windows, err := g.listGroup(grp, nil)
		if err != nil {
			return fmt.Errorf("reading set %s: %w", name, err)
		}
		for _, w := range windows {
			g.remember(w)
		}
	}
	for _, spec := range []setSpec{keptSet(false), keptSet(true)} {
		if st.sets[spec.name] != nil {
			if err := g.readKept(spec); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget drops windows that ran out, and those of services that are gone.
func (g *gate) forget() {
	now := time.Now()
	names := map[string]bool{}
	for _, s := range g.services {
		names[s.Name] = true
	}
	for k, expires := range g.live {
		if !names[k.service] || isOver(expires, now) {
			delete(g.live, k)
		}
	}
	for grp := range g.groups {
		if !names[grp.service] {
			delete(g.groups, grp)
		}
	}
}

// adopt takes what is open for what should be.
func (g *gate) adopt() error {
	windows, err := g.list()
	if err != nil {
		return err
	}
	clear(g.live)
	for _, w := range windows {
		g.remember(w)
	}
	for _, spec := range g.rs.sets {
		if spec.kind == kindConn4 || spec.kind == kindConn6 {
			if err := g.readKept(spec); err != nil {
				return err
			}
		}
	}
	return nil
}

// remember takes a listed window for one that should be open.
func (g *gate) remember(w knockcore.Window) {
	if w.Expires.IsZero() {
		w.Expires = forever
	}
	if k, err := keyOf(w); err == nil {
		g.live[k] = w.Expires
	}
}
