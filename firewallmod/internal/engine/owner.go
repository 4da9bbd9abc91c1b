// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const (
	// workTimeout bounds every piece of work of a backend.
	workTimeout = 10 * time.Second
	// maxBatch is how many calls are joined where nobody says.
	maxBatch = 256
	// sweepPause is the least time between two rounds of ending windows that are
	// over: the firewall times them itself.
	sweepPause = time.Second
)

// request is something to do: run, or windows to open (those with an expiry) and
// to close.
type request struct {
	ctx     context.Context
	run     func(context.Context) error
	last    bool
	windows Windows
	done    chan error
}

// owner is the goroutine that owns a backend, and what it knows.
type owner struct {
	backend  Backend
	options  Options
	heals    *atomic.Uint64
	requests chan *request
	ended    chan struct{}

	services []*knockcore.Service
	windows  Windows // that should be open; nil before the first setup
	swept    time.Time
	trouble  error // what is broken and could not be mended
	credit   float64
	credited time.Time
}

func newOwner(b Backend, options Options, heals *atomic.Uint64) *owner {
	return &owner{
		backend: b, options: options, heals: heals, requests: make(chan *request), ended: make(chan struct{}),
		credit: healBurst, credited: time.Now(),
	}
}

// do hands the request over and waits for the outcome. Once begun, work is not
// left: what the caller is told is what is.
func (o *owner) do(r *request) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	r.done = make(chan error, 1)
	select {
	case o.requests <- r:
		return <-r.done
	case <-o.ended:
		return ErrStopped
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// end makes fn the owner's last deed and waits for its end.
func (o *owner) end(fn func(context.Context) error) error {
	err := o.do(&request{ctx: context.Background(), last: true, run: func(ctx context.Context) error {
		defer o.backend.Close()
		return fn(ctx)
	}})
	<-o.ended
	return err
}

func (o *owner) loop() {
	defer close(o.ended)
	failed := enter(o.options.NetNS)
	interval := o.options.CheckInterval
	if interval <= 0 {
		interval = DefaultCheckInterval
	}
	check := time.NewTicker(interval)
	defer check.Stop()
	var wake <-chan struct{}
	if w, ok := o.backend.(Waker); ok {
		wake = w.Wake()
	}
	for {
		select {
		case r := <-o.requests:
			if failed != nil && !r.last {
				r.done <- failed
				continue
			}
			if o.serve(r) {
				return
			}
		case <-o.nextSweep():
			o.sweep()
		case <-check.C:
			o.look()
		case <-wake:
			o.look()
		}
	}
}

// serve does what is asked, with what else is asked at this moment; it reports
// whether that was the last.
func (o *owner) serve(r *request) (last bool) {
	var batch []*request
	most := o.options.MaxBatch
	if most <= 0 {
		most = maxBatch
	}
	for r != nil && r.run == nil {
		if batch = append(batch, r); len(batch) == most {
			r = nil
			break
		}
		select {
		case r = <-o.requests:
		default:
			r = nil
		}
	}
	o.change(batch)
	if r == nil {
		return false
	}
	r.done <- o.work(r.ctx, r.run)
	return r.last
}

// work runs fn with a deadline of its own; the caller's context ends it only
// before it begins.
func (o *owner) work(ctx context.Context, fn func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), workTimeout)
	defer cancel()
	return fn(ctx)
}

// change opens and closes what the requests want, at once or, if that fails, one
// by one, so that everybody gets the error of what he asked.
func (o *owner) change(batch []*request) {
	var valid []*request
	merged := Windows{}
	for _, r := range batch {
		if err := o.check(r); err != nil {
			r.done <- err
			continue
		}
		valid = append(valid, r)
		for k, expires := range r.windows {
			merged[k] = expires
		}
	}
	if len(valid) == 0 {
		return
	}
	err := o.apply(merged)
	for _, r := range valid {
		if err != nil && len(valid) > 1 {
			r.done <- o.apply(r.windows)
			continue
		}
		r.done <- err
	}
}

func (o *owner) check(r *request) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	for k, expires := range r.windows {
		if !expires.IsZero() && !o.knows(k.Service) {
			return fmt.Errorf("window for service %q: %w", k.Service, ErrUnknownService)
		}
	}
	return nil
}

func (o *owner) knows(service string) bool {
	for _, s := range o.services {
		if s.Name == service {
			return true
		}
	}
	return false
}

// apply makes the windows be what is wanted of them.
func (o *owner) apply(wanted Windows) error {
	var changes []Change
	for k, expires := range wanted {
		old, open := o.windows[k]
		if open && old.Equal(expires) && !expires.IsZero() || !open && expires.IsZero() {
			continue
		}
		changes = append(changes, Change{k, old, expires})
	}
	if len(changes) == 0 {
		return nil
	}
	err := o.work(context.Background(), func(ctx context.Context) error { return o.backend.Apply(ctx, changes) })
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.New.IsZero() {
			delete(o.windows, c.Key)
		} else {
			o.windows[c.Key] = c.New
		}
	}
	return nil
}
