// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Engine keeps services closed with iptables, and opens windows as rules.
type Engine struct {
	*engine.Engine
	rules *rules
}

// New makes an engine. It touches nothing before Setup.
func New(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &rules{config: c}
	return &Engine{engine.New(r, c.Options), r}, nil
}

// Configure changes the configuration; it takes effect with the next Setup.
func (e *Engine) Configure(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Identity() != e.rules.config.Identity() {
		return errors.New("an engine keeps its chain: make another one")
	}
	return e.Engine.Configure(c.Options, func() { e.rules.config = c })
}

// Warnings are what the operator should know, after Setup.
func (e *Engine) Warnings() (list []string) {
	_ = e.Do(context.Background(), func(context.Context) error {
		list = e.rules.gate.Warnings(e.rules.config)
		if !e.rules.timed {
			list = append(list, "the kernel has no match `time` (xt_time): windows end only while Caddy runs; after kill -9 they stay open until it starts again")
		}
		return nil
	})
	return list
}

// rules is the backend.
type rules struct {
	config Config
	gate   Gate
	tried  bool
	timed  bool // the kernel ends windows
}

var _ engine.Backend = (*rules)(nil)

func (r *rules) Accepts(services []*knockcore.Service) error { return r.config.Accepts(services) }

func (r *rules) List(ctx context.Context, services []*knockcore.Service) (engine.Windows, error) {
	saved, err := r.gate.Read(ctx, r.config)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	list := engine.Windows{}
	for _, s := range services {
		for _, chains := range saved {
			for _, rule := range chains[r.config.serviceChain(s.Name)] {
				if p, expires, ok := parseWindowRule(rule); ok && (!r.timed || kernelEnd(expires).After(now)) {
					list[engine.Key{Service: s.Name, Prefix: p}] = expires
				}
			}
		}
	}
	return list, nil
}

func (r *rules) Install(ctx context.Context, services []*knockcore.Service, windows engine.Windows) error {
	if !r.tried {
		timed, err := r.gate.Knows(ctx, r.config, func(bool) string { return "-m time --datestop 2038-01-18T00:00:00" })
		if err != nil {
			return err
		}
		r.timed, r.tried = timed, true
	}
	return r.gate.Install(ctx, r.config, services, r.wanted(windows))
}

// wanted returns the rules for the windows.
func (r *rules) wanted(windows engine.Windows) func(v6 bool, service string) []string {
	type chain struct {
		v6      bool
		service string
	}
	list := map[chain][]string{}
	for k, expires := range windows {
		c := chain{k.Prefix.Addr().Is6(), k.Service}
		list[c] = append(list[c], windowRule(k.Prefix, expires, r.timed))
	}
	return func(v6 bool, service string) []string { return list[chain{v6, service}] }
}

func (r *rules) Apply(ctx context.Context, changes []engine.Change) error {
	var script, undo [2]strings.Builder
	for _, c := range changes {
		if err := acceptsWindow(c); err != nil {
			return err
		}
		i := index(c.Prefix)
		r.step(&script[i], c.Key, c.Old, c.New)
		r.step(&undo[i], c.Key, c.New, c.Old)
	}
	err := r.gate.Write(ctx, r.config, map[bool]string{false: script[0].String()})
	if err != nil {
		return fmt.Errorf("changing windows: %w", err)
	}
	if err = r.gate.Write(ctx, r.config, map[bool]string{true: script[1].String()}); err != nil {
		if undo := r.gate.Write(ctx, r.config, map[bool]string{false: undo[0].String()}); undo != nil {
			err = errors.Join(err, undo)
		}
		return fmt.Errorf("changing windows: %w", err)
	}
	return nil
}

// step adds the new rule before it deletes the old one: no gap.
func (r *rules) step(b *strings.Builder, k engine.Key, from, to time.Time) {
	chain := r.config.serviceChain(k.Service)
	if !to.IsZero() {
		fmt.Fprintf(b, "-A %s %s\n", chain, windowRule(k.Prefix, to, r.timed))
	}
	if !from.IsZero() {
		fmt.Fprintf(b, "-D %s %s\n", chain, windowRule(k.Prefix, from, r.timed))
	}
}

func index(p netip.Prefix) int {
	if p.Addr().Is6() {
		return 1
	}
	return 0
}

func (r *rules) Verify(ctx context.Context, windows engine.Windows) (string, error) {
	saved, err := r.gate.Read(ctx, r.config)
	if err != nil {
		return "", err
	}
	return r.gate.Broken(r.config, saved, r.wanted(windows)), nil
}

func (r *rules) Remove(ctx context.Context) error { return r.gate.Remove(ctx, r.config) }

// Close forgets what was found out: the next start asks again.
func (r *rules) Close() { r.gate, r.tried = Gate{}, false }
