// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package ipset

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/firewallmod/internal/iptables"
	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Engine keeps services closed with iptables, and opens windows as entries of
// sets; or only does the latter, in sets of the operator's.
type Engine struct {
	*engine.Engine
	config Config
	set    func(Config)
	own    *own // nil with sets of the operator's
}

// New makes an engine. It touches nothing before Setup.
func New(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if len(c.Sets) > 0 {
		g := &guest{config: c}
		return &Engine{engine.New(g, c.Options), c, func(c Config) { g.config = c }, nil}, nil
	}
	o := &own{config: c}
	return &Engine{engine.New(o, c.Options), c, func(c Config) { o.config = c }, o}, nil
}

// Configure changes the configuration; it takes effect with the next Setup.
func (e *Engine) Configure(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Identity() != e.config.Identity() {
		return errors.New("an engine keeps its sets: make another one")
	}
	return e.Engine.Configure(c.Options, func() { e.set(c) })
}

// Warnings are what the operator should know, after Setup.
func (e *Engine) Warnings() (list []string) {
	if e.own == nil {
		return []string{"windows go to sets of yours: whether anything is closed depends on your rules alone"}
	}
	_ = e.Do(context.Background(), func(context.Context) error {
		list = e.own.gate.Warnings(e.own.config.Config)
		return nil
	})
	return list
}

// own is the backend with sets and rules of ours.
type own struct {
	config   Config
	kernel   kernel
	gate     iptables.Gate
	tried    bool
	services []*knockcore.Service
	extended time.Time // when entries beyond maxTimeout were last renewed
}

var _ engine.Backend = (*own)(nil)

func (o *own) Accepts(services []*knockcore.Service) error { return o.config.Accepts(services) }

func (o *own) List(_ context.Context, services []*knockcore.Service) (engine.Windows, error) {
	if err := o.kernel.open(); err != nil {
		return nil, err
	}
	list := engine.Windows{}
	for _, s := range services {
		for _, v6 := range []bool{false, true} {
			set, err := o.kernel.list(o.config.setName(v6, s.Name))
			if err != nil {
				return nil, err
			}
			if set == nil {
				continue
			}
			for p, expires := range set.entries {
				list[engine.Key{Service: s.Name, Prefix: p}] = expires
			}
		}
	}
	return list, nil
}

func (o *own) Install(ctx context.Context, services []*knockcore.Service, windows engine.Windows) error {
	if err := o.kernel.open(); err != nil {
		return err
	}
	for _, s := range services {
		for _, v6 := range []bool{false, true} {
			if err := o.kernel.create(o.config.setName(v6, s.Name), v6); err != nil {
				return err
			}
		}
	}
	if err := o.fill(ctx, services, windows); err != nil {
		return err
	}
	if !o.tried && len(services) > 0 {
		knows, err := o.gate.Knows(ctx, o.config.Config, func(v6 bool) string { return o.config.match(v6, services[0].Name) })
		if err != nil {
			return err
		}
		if !knows {
			return fmt.Errorf("iptables or the kernel has no match `set` (xt_set); use firewall iptables or nftables: %w", engine.ErrUnsupported)
		}
		o.tried = true
	}
	if err := o.gate.Install(ctx, o.config.Config, services, o.rules); err != nil {
		return err
	}
	o.services = services
	return o.discard(services)
}

// rules let in who is in the set of the service.
func (o *own) rules(v6 bool, service string) []string {
	return []string{o.config.accept(v6, service)}
}

// fill makes the sets hold exactly the windows; entries that are right stay.
func (o *own) fill(ctx context.Context, services []*knockcore.Service, windows engine.Windows) error {
	listed, err := o.List(ctx, services)
	if err != nil {
		return err
	}
	now := time.Now()
	for k := range listed {
		if _, wanted := windows[k]; !wanted {
			if err := o.kernel.remove(o.config.setName(k.Prefix.Addr().Is6(), k.Service), k.Prefix); err != nil {
				return err
			}
		}
	}
	for k, expires := range windows {
		if differs(now, listed[k], expires) {
			if err := o.put(k, expires); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *own) put(k engine.Key, expires time.Time) error {
	set := o.config.setName(k.Prefix.Addr().Is6(), k.Service)
	if expires.IsZero() {
		return o.kernel.remove(set, k.Prefix)
	}
	return o.kernel.add(set, k.Prefix, expires)
}

// discard destroys sets of services that are gone.
func (o *own) discard(services []*knockcore.Service) error {
	wanted := map[string]bool{}
	for _, s := range services {
		wanted[o.config.setName(false, s.Name)] = true
		wanted[o.config.setName(true, s.Name)] = true
	}
	names, err := o.kernel.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if o.config.owns(name) && !wanted[name] {
			if err := o.kernel.destroy(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *own) Apply(_ context.Context, changes []engine.Change) error {
	for i, c := range changes {
		err := iptables.AcceptsPrefix(c.Prefix)
		if err == nil {
			err = o.put(c.Key, c.New)
		}
		if err != nil {
			for _, c := range changes[:i] {
				err = errors.Join(err, o.put(c.Key, c.Old))
			}
			return err
		}
	}
	return nil
}

func (o *own) Verify(ctx context.Context, windows engine.Windows) (string, error) {
	saved, err := o.gate.Read(ctx, o.config.Config)
	if err != nil {
		return "", err
	}
	if broken := o.gate.Broken(o.config.Config, saved, o.rules); broken != "" {
		return broken, nil
	}
	listed, err := o.List(ctx, o.services)
	if err != nil {
		return "", err
	}
	now := time.Now()
	for k, expires := range windows {
		if differs(now, listed[k], expires) {
			return "entries of a set are gone or were changed", nil
		}
	}
	for k, expires := range listed {
		if _, known := windows[k]; !known && (expires.IsZero() || expires.Sub(now) > slack) {
			return "somebody added entries to a set of ours", nil
		}
	}
	return "", o.extend(now, windows)
}

// extend renews entries that live longer than the kernel's timeouts reach.
func (o *own) extend(now time.Time, windows engine.Windows) error {
	if now.Sub(o.extended) < time.Hour {
		return nil
	}
	o.extended = now
	for k, expires := range windows {
		if farther(now.Add(-2*time.Hour), expires) {
			if err := o.put(k, expires); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *own) Remove(ctx context.Context) error {
	if err := o.gate.Remove(ctx, o.config.Config); err != nil {
		return err
	}
	return o.discard(nil)
}

// Close forgets what was found out: the next start asks again.
func (o *own) Close() {
	o.kernel.close()
	o.gate, o.tried = iptables.Gate{}, false
}
