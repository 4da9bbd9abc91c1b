// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Engine keeps services closed with firewalld, and opens windows.
type Engine struct {
	*engine.Engine
	rich *rich
}

// New makes an engine. It touches nothing before Setup.
func New(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := newRich(c)
	c.MaxBatch = maxBatch
	return &Engine{engine.New(r, c.Options), r}, nil
}

// maxBatch is how many calls are joined: firewalld takes 10 ms for each rule.
const maxBatch = 16

// Configure changes the configuration; it takes effect with the next Setup.
func (e *Engine) Configure(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Identity() != e.rich.config.Identity() {
		return errors.New("an engine keeps its zone: make another one")
	}
	c.MaxBatch = maxBatch
	return e.Engine.Configure(c.Options, func() { e.rich.config = c })
}

// Warnings are what the operator should know.
func (e *Engine) Warnings() []string {
	return []string{"rich rules gate the traffic of their zone only, and no ports that are forwarded, such as those published by Docker: these stay open to everybody; use firewall nftables"}
}

// rich is the backend.
type rich struct {
	config   Config
	daemon   daemon
	zone     string
	services []*knockcore.Service
}

func newRich(c Config) *rich {
	return &rich{config: c, daemon: daemon{bus{address: c.Bus, wake: make(chan struct{}, 1)}}}
}

var (
	_ engine.Backend = (*rich)(nil)
	_ engine.Waker   = (*rich)(nil)
)

func (r *rich) Wake() <-chan struct{} { return r.daemon.wake }

func (r *rich) Accepts(services []*knockcore.Service) error { return r.config.Accepts(services) }

func (r *rich) List(ctx context.Context, services []*knockcore.Service) (engine.Windows, error) {
	zone := r.zone
	if zone == "" {
		var err error
		if zone, err = r.daemon.zone(ctx, r.config); err != nil {
			return nil, err
		}
	}
	rules, err := r.daemon.rules(ctx, zone)
	return r.config.windowsOf(rules, services), err
}

// Install makes the permanent rules and those of now what they should be. Rules
// that close come first, and rules that should not be go last.
func (r *rich) Install(ctx context.Context, services []*knockcore.Service, windows engine.Windows) error {
	zone, err := r.daemon.zone(ctx, r.config)
	if err != nil {
		return err
	}
	if r.zone != "" && r.zone != zone { // the default zone is another now
		if err := r.clean(ctx, r.zone); err != nil {
			return err
		}
	}
	if err := r.daemon.bind(ctx, zone, r.config.Sources); err != nil {
		return err
	}
	var gate, all []rule
	ends := map[rule]time.Time{}
	for _, s := range services {
		gate = append(gate, r.config.gateRules(s)...)
		for k, expires := range windows {
			if k.Service == s.Name {
				for _, rule := range r.config.windowRules(s, k.Prefix, expires) {
					all = append(all, rule)
					ends[rule] = expires
				}
			}
		}
	}
	if err := r.installPermanent(ctx, zone, gate); err != nil {
		return err
	}
	now, err := r.daemon.rules(ctx, zone)
	if err != nil {
		return err
	}
	missing, extra := compare(now, append(gate, all...))
	for _, rule := range missing {
		seconds := int64(0)
		if expires, timed := ends[rule]; timed {
			seconds = engine.SecondsUntil(time.Now(), expires)
		}
		if err := r.daemon.add(ctx, zone, rule.String(), seconds); err != nil {
			return err
		}
	}
	for _, text := range extra {
		if err := r.daemon.remove(ctx, zone, text); err != nil {
			return err
		}
	}
	r.zone, r.services = zone, services
	return nil
}

func (r *rich) installPermanent(ctx context.Context, zone string, gate []rule) error {
	path, now, err := r.daemon.permanent(ctx, zone)
	if err != nil {
		return fmt.Errorf("the permanent configuration: %w", err)
	}
	if err := r.daemon.bindPermanent(ctx, path, r.config.Sources); err != nil {
		return err
	}
	missing, extra := compare(now, gate)
	for _, rule := range missing {
		if err := r.daemon.addPermanent(ctx, path, rule.String()); err != nil {
			return err
		}
	}
	for _, text := range extra {
		if err := r.daemon.removePermanent(ctx, path, text); err != nil {
			return err
		}
	}
	return nil
}

// compare says which rules are missing, and which of ours are too many.
func compare(now []string, wanted []rule) (missing []rule, extra []string) {
	want := make(map[rule]bool, len(wanted))
	for _, rule := range wanted {
		want[rule] = true
	}
	have := map[rule]bool{}
	for _, text := range now {
		if rule, ours := parseRule(text); ours {
			if have[rule] = true; !want[rule] {
				extra = append(extra, text)
			}
		}
	}
	for _, rule := range wanted {
		if !have[rule] {
			have[rule] = true // two services may share a port
			missing = append(missing, rule)
		}
	}
	return missing, extra
}

func (r *rich) service(name string) *knockcore.Service {
	for _, s := range r.services {
		if s.Name == name {
			return s
		}
	}
	return &knockcore.Service{Name: name}
}

// Apply opens before it closes: a window that moves has no gap.
func (r *rich) Apply(ctx context.Context, changes []engine.Change) error {
	var undo []func() error
	err := func() error {
		for _, c := range changes {
			if c.Prefix.Bits() == 0 {
				return fmt.Errorf("a window of %v would open to everybody: %w", c.Prefix, engine.ErrUnsupported)
			}
			s := r.service(c.Service)
			if !c.New.IsZero() {
				for _, rule := range r.config.windowRules(s, c.Prefix, c.New) {
					undo = append(undo, func() error { return r.daemon.remove(ctx, r.zone, rule.String()) })
					if err := r.daemon.add(ctx, r.zone, rule.String(), engine.SecondsUntil(time.Now(), c.New)); err != nil {
						return err
					}
				}
			}
		}
		for _, c := range changes {
			if c.Old.IsZero() {
				continue
			}
			for _, rule := range r.config.windowRules(r.service(c.Service), c.Prefix, c.Old) {
				if err := r.daemon.remove(ctx, r.zone, rule.String()); err != nil {
					return err
				}
				undo = append(undo, func() error {
					return r.daemon.add(ctx, r.zone, rule.String(), engine.SecondsUntil(time.Now(), c.Old))
				})
			}
		}
		return nil
	}()
	if err != nil {
		for _, undo := range undo {
			if failed := undo(); failed != nil {
				break // firewalld is gone; what is left is found and mended
			}
		}
	}
	return err
}

func (r *rich) Remove(ctx context.Context) error { return r.clean(ctx, r.zone) }

func (r *rich) Close() {
	r.daemon.close()
	r.zone = ""
}
