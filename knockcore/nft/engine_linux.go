// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Engine keeps services closed with nftables, but for windows. Its methods may
// be called concurrently.
type Engine struct {
	mu     sync.Mutex // held while setting up and stopping; guards cfg
	cfg    Config
	runner atomic.Pointer[owner]
	heals  atomic.Uint64
}

var (
	_ knockcore.Firewall = (*Engine)(nil)
	_ knockcore.Checker  = (*Engine)(nil)
	_ knockcore.Healer   = (*Engine)(nil)
	_ knockcore.Wall     = (*Engine)(nil)
)

// New makes an engine. It touches nothing before Setup.
func New(cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Engine{cfg: cfg}, nil
}

// Configure changes the configuration; it takes effect with the next Setup. The
// table, the sets and the namespace stay as they are for the engine's life.
func (e *Engine) Configure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if cfg.identity() != e.cfg.identity() {
		return errors.New("an engine keeps its table: make another one")
	}
	e.cfg = cfg
	return nil
}

// Warnings are what the operator should know about the configuration.
func (e *Engine) Warnings() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cfg.Warnings()
}

// Setup closes the services, in one transaction. A table of ours that stands
// already is changed in place: windows of services that remain stay open, and
// nothing is open meanwhile. If it fails, nothing was opened by it.
func (e *Engine) Setup(ctx context.Context, services []*knockcore.Service) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	o, started := e.runner.Load(), false
	if o == nil {
		var k keeper
		if len(e.cfg.Sets) > 0 {
			k = newGuest(e.cfg)
		} else {
			k = newGate(e.cfg)
		}
		o, started = newOwner(k, e.cfg, &e.heals), true
		go o.loop()
	}
	cfg := e.cfg
	err := o.do(&request{ctx: ctx, run: func() error { return o.setup(cfg, withBans(services, cfg.Bans)) }})
	switch {
	case started && err == nil:
		e.runner.Store(o)
	case started:
		o.end(func() error { return nil })
	}
	return err
}

// Open opens windows, or moves the expiry of those that are open. All windows of
// a call open, or none (a call with more than 1024 is divided).
func (e *Engine) Open(ctx context.Context, windows ...knockcore.Window) error {
	return e.change(ctx, windows, false)
}

// Close closes windows; those that are not open are no error.
func (e *Engine) Close(ctx context.Context, windows ...knockcore.Window) error {
	return e.change(ctx, windows, true)
}

func (e *Engine) change(ctx context.Context, windows []knockcore.Window, closing bool) error {
	o := e.runner.Load()
	switch {
	case len(windows) == 0:
		return nil
	case o == nil:
		return ErrStopped
	}
	return o.do(&request{ctx: ctx, windows: windows, close: closing})
}

// List asks the kernel which windows are open.
func (e *Engine) List(ctx context.Context) (windows []knockcore.Window, err error) {
	err = e.run(ctx, func(o *owner) (err error) { windows, err = o.keeper.list(); return err })
	return slices.DeleteFunc(windows, func(w knockcore.Window) bool { return w.Service == bannedService }), err
}

// Counts reads the packet counters, by service; "" stands for what bans kept out.
func (e *Engine) Counts(ctx context.Context) (counts map[string]Counts, err error) {
	err = e.run(ctx, func(o *owner) (err error) { counts, err = o.keeper.counts(); return err })
	return counts, err
}

// Check looks whether the table stands as it was installed, repairs it if not,
// and tells what could not be repaired.
func (e *Engine) Check(ctx context.Context) error {
	return e.run(ctx, func(o *owner) error { o.look(changedRules); return o.healErr })
}

// Heals is how often the table was repaired.
func (e *Engine) Heals() uint64 { return e.heals.Load() }

// Stop ends the engine's work and leaves the table as mode says: without
// windows, with them, or not at all. It is done also if the context is. The
// engine can be set up again.
func (e *Engine) Stop(_ context.Context, mode knockcore.ExitMode) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.runner.Swap(nil)
	if o == nil {
		return nil
	}
	return o.end(func() error { return o.keeper.stop(mode) })
}

// end runs fn as the owner's last deed and waits for its end.
func (o *owner) end(fn func() error) error {
	err := o.do(&request{ctx: context.Background(), last: true, run: func() error {
		defer o.keeper.close()
		return fn()
	}})
	<-o.ended
	return err
}

func (e *Engine) run(ctx context.Context, fn func(*owner) error) error {
	o := e.runner.Load()
	if o == nil {
		return ErrStopped
	}
	return o.do(&request{ctx: ctx, run: func() error { return fn(o) }})
}
