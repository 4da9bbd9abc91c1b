// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package ipset

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/firewallmod/internal/iptables"
	"github.com/caddy-knock/caddy-knock/knockcore"
)

// guest is the backend with sets of the operator's. There an address is open or
// not, whatever the service: an entry lives as long as the longest window of its
// prefix. Entries of others stay; what an earlier process of ours left looks like
// theirs, and runs out by itself.
type guest struct {
	config Config
	kernel kernel
	sets   map[bool]*set // by v6
	live   map[netip.Prefix]map[string]time.Time
}

var _ engine.Backend = (*guest)(nil)

func (g *guest) Accepts(services []*knockcore.Service) error { return g.config.Accepts(services) }

// find looks at the sets.
func (g *guest) find() error {
	if err := g.kernel.open(); err != nil {
		return err
	}
	g.sets = map[bool]*set{}
	for _, name := range g.config.Sets {
		s, err := g.kernel.list(name)
		switch {
		case err != nil:
			return err
		case s == nil:
			return fmt.Errorf("set %s: %w: there is none; make it with `ipset create %s hash:ip timeout 0`", name, ErrSet, name)
		case s.kind != "hash:ip" && s.kind != "hash:net":
			return fmt.Errorf("set %s: %w: it is %s; expect hash:ip or hash:net", name, ErrSet, s.kind)
		case !s.timeout:
			return fmt.Errorf("set %s: %w: its entries have no timeouts; make it with `timeout 0`", name, ErrSet)
		case g.sets[s.v6] != nil:
			return fmt.Errorf("sets %s and %s: %w: one for each family, please", g.sets[s.v6].name, name, ErrSet)
		}
		g.sets[s.v6] = s
	}
	return nil
}

func (g *guest) List(_ context.Context, services []*knockcore.Service) (engine.Windows, error) {
	if err := g.find(); err != nil {
		return nil, err
	}
	list := engine.Windows{}
	for p, windows := range g.live {
		s := g.sets[p.Addr().Is6()]
		if s == nil {
			continue
		}
		expires, open := s.entries[p]
		if !open {
			continue
		}
		for service, until := range windows {
			if !expires.IsZero() && expires.Before(until) {
				until = expires
			}
			list[engine.Key{Service: service, Prefix: p}] = until
		}
	}
	return list, nil
}

func (g *guest) Install(_ context.Context, _ []*knockcore.Service, windows engine.Windows) error {
	if err := g.find(); err != nil {
		return err
	}
	before := g.live
	g.live = map[netip.Prefix]map[string]time.Time{}
	for k, expires := range windows {
		g.note(k, expires)
	}
	for p := range before {
		if g.live[p] == nil {
			if err := g.write(p); err != nil {
				return err
			}
		}
	}
	now := time.Now()
	for p := range g.live {
		if g.differs(now, p) {
			if err := g.write(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// differs reports whether the entry of the prefix is not what it should be.
func (g *guest) differs(now time.Time, p netip.Prefix) bool {
	s := g.sets[p.Addr().Is6()]
	return s == nil || differs(now, s.entries[p], g.until(p))
}

// note keeps in mind what a window of the prefix should be.
func (g *guest) note(k engine.Key, expires time.Time) {
	if expires.IsZero() {
		if delete(g.live[k.Prefix], k.Service); len(g.live[k.Prefix]) == 0 {
			delete(g.live, k.Prefix)
		}
		return
	}
	if g.live[k.Prefix] == nil {
		g.live[k.Prefix] = map[string]time.Time{}
	}
	g.live[k.Prefix][k.Service] = expires
}

// until is the end of the longest window of the prefix, or the zero time.
func (g *guest) until(p netip.Prefix) (latest time.Time) {
	for _, expires := range g.live[p] {
		if expires.After(latest) {
			latest = expires
		}
	}
	return latest
}

// write makes the entry of the prefix what it should be.
func (g *guest) write(p netip.Prefix) error {
	s := g.sets[p.Addr().Is6()]
	if s == nil {
		return fmt.Errorf("a window of %v: %w: no set of its family is named", p, ErrSet)
	}
	if expires := g.until(p); !expires.IsZero() {
		return g.kernel.add(s.name, p, expires)
	}
	return g.kernel.remove(s.name, p)
}

func (g *guest) accepts(p netip.Prefix) error {
	s := g.sets[p.Addr().Is6()]
	switch {
	case s == nil:
		return fmt.Errorf("a window of %v: %w: no set of its family is named", p, ErrSet)
	case s.kind == "hash:ip" && !p.IsSingleIP():
		return fmt.Errorf("a window of %v: %w: set %s holds single addresses; make it hash:net", p, ErrSet, s.name)
	default:
		return iptables.AcceptsPrefix(p)
	}
}

func (g *guest) Apply(_ context.Context, changes []engine.Change) error {
	for _, c := range changes {
		if !c.New.IsZero() {
			if err := g.accepts(c.Prefix); err != nil {
				return err
			}
		}
	}
	for i, c := range changes {
		g.note(c.Key, c.New)
		if err := g.write(c.Prefix); err != nil {
			for _, c := range changes[:i+1] {
				g.note(c.Key, c.Old)
				err = errors.Join(err, g.write(c.Prefix))
			}
			return err
		}
	}
	return nil
}

func (g *guest) Verify(context.Context, engine.Windows) (string, error) {
	if err := g.find(); err != nil {
		return "", err
	}
	now := time.Now()
	for p := range g.live {
		if g.differs(now, p) {
			return "entries of a set are gone or were changed", nil
		}
	}
	return "", nil
}

// Remove takes our entries away; the sets are not ours.
func (g *guest) Remove(ctx context.Context) error { return g.Install(ctx, nil, nil) }

func (g *guest) Close() { g.kernel.close() }
