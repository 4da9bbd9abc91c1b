// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Engine is a [knockcore.Firewall] over a backend. Its methods may be called
// concurrently.
type Engine struct {
	mu      sync.Mutex // held while setting up, configuring and stopping
	backend Backend
	options Options
	owner   atomic.Pointer[owner]
	heals   atomic.Uint64
}

var (
	_ knockcore.Firewall = (*Engine)(nil)
	_ knockcore.Checker  = (*Engine)(nil)
	_ knockcore.Healer   = (*Engine)(nil)
)

// New makes an engine. It touches nothing before Setup.
func New(b Backend, o Options) *Engine { return &Engine{backend: b, options: o} }

// Configure runs change, which may alter the backend's configuration, while the
// backend is at rest; the next Setup uses the new one.
func (e *Engine) Configure(o Options, change func()) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.options = o
	if owner := e.owner.Load(); owner != nil {
		return owner.do(&request{ctx: context.Background(), run: func(context.Context) error {
			change()
			owner.options = o
			return nil
		}})
	}
	change()
	return nil
}

// Setup closes the services and adopts what stands.
func (e *Engine) Setup(ctx context.Context, services []*knockcore.Service) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	o, started := e.owner.Load(), false
	if o == nil {
		o, started = newOwner(e.backend, e.options, &e.heals), true
		go o.loop()
	}
	err := o.do(&request{ctx: ctx, run: func(ctx context.Context) error { return o.setup(ctx, services) }})
	switch {
	case started && err == nil:
		e.owner.Store(o)
	case started:
		_ = o.end(func(context.Context) error { return nil })
	}
	return err
}

// Open opens windows, or moves the expiry of those that are open: all or none.
func (e *Engine) Open(ctx context.Context, windows ...knockcore.Window) error {
	return e.change(ctx, windows, false)
}

// Close closes windows; those that are not open are no error.
func (e *Engine) Close(ctx context.Context, windows ...knockcore.Window) error {
	return e.change(ctx, windows, true)
}

func (e *Engine) change(ctx context.Context, windows []knockcore.Window, closing bool) error {
	o := e.owner.Load()
	switch {
	case len(windows) == 0:
		return nil
	case o == nil:
		return ErrStopped
	}
	wanted := make(Windows, len(windows))
	for _, w := range windows {
		k, err := KeyOf(w)
		if err != nil {
			return err
		}
		wanted[k] = time.Time{}
		if closing {
			continue
		}
		if wanted[k] = normal(w.Expires); !w.Expires.After(time.Now()) {
			return fmt.Errorf("window of %v for service %s: %w", w.Prefix, w.Service, ErrExpired)
		}
	}
	return o.do(&request{ctx: ctx, windows: wanted})
}

// List asks the firewall which windows are open.
func (e *Engine) List(ctx context.Context) (list []knockcore.Window, err error) {
	err = e.run(ctx, func(ctx context.Context, o *owner) error {
		windows, err := o.backend.List(ctx, o.services)
		for k, expires := range windows {
			list = append(list, knockcore.Window{Prefix: k.Prefix, Service: k.Service, Expires: expires})
		}
		return err
	})
	return list, err
}

// Check looks whether the gate stands, repairs it if not, and tells what could
// not be repaired.
func (e *Engine) Check(ctx context.Context) error {
	return e.run(ctx, func(_ context.Context, o *owner) error { o.look(); return o.trouble })
}

// Heals is how often the gate was repaired.
func (e *Engine) Heals() uint64 { return e.heals.Load() }

// Stop ends the engine's work and leaves the gate as mode says. It is done also
// if the context is. The engine can be set up again.
func (e *Engine) Stop(_ context.Context, mode knockcore.ExitMode) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.owner.Swap(nil)
	if o == nil {
		return nil
	}
	return o.end(func(ctx context.Context) error { return o.stop(ctx, mode) })
}

// Do runs fn in the goroutine that owns the backend.
func (e *Engine) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	return e.run(ctx, func(ctx context.Context, _ *owner) error { return fn(ctx) })
}

func (e *Engine) run(ctx context.Context, fn func(context.Context, *owner) error) error {
	o := e.owner.Load()
	if o == nil {
		return ErrStopped
	}
	return o.do(&request{ctx: ctx, run: func(ctx context.Context) error { return fn(ctx, o) }})
}
