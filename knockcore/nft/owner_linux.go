// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const (
	// queueLen is how many calls may wait before callers block.
	queueLen = 4096
	// maxCommit is how many windows go out in one commit at most.
	maxCommit = 16384
	// healBurst repairs are made at once; after that one every healPause, so that
	// a fight over the table does not eat the machine.
	healBurst = 20
	healPause = time.Second
)

// request is a call that waits for the owner.
type request struct {
	ctx context.Context
	// windows are to be opened, or closed.
	windows []knockcore.Window
	close   bool
	// run is anything else; it is not joined with others.
	run func() error
	// last makes the owner end after run.
	last bool
	done chan error
	// state makes sure that a request is either begun or given up, not both.
	state atomic.Uint32
}

const (
	waiting uint32 = iota
	begun
	givenUp
)

func (r *request) begin() bool { return r.state.CompareAndSwap(waiting, begun) }

// owner is the one goroutine that talks to the kernel.
type owner struct {
	keeper   keeper
	cfg      Config
	services []*knockcore.Service
	names    map[string]bool // of the services
	requests chan *request
	ended    chan struct{}
	heals    *atomic.Uint64

	monitor *monitor
	// credit is how many repairs may be made at once.
	credit   float64
	credited time.Time
	// healErr is why the table does not stand as it should.
	healErr error
}

func newOwner(k keeper, cfg Config, heals *atomic.Uint64) *owner {
	return &owner{
		keeper: k, cfg: cfg, heals: heals, requests: make(chan *request, queueLen), ended: make(chan struct{}),
		credit: healBurst, credited: time.Now(),
	}
}

// do hands the request to the owner and waits for its end. With its context it is
// given up if it has not begun; commits are short.
func (o *owner) do(r *request) error {
	r.done = make(chan error, 1)
	select {
	case o.requests <- r:
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-o.ended:
		return ErrStopped
	}
	select {
	case err := <-r.done:
		return err
	case <-r.ctx.Done():
		if r.state.CompareAndSwap(waiting, givenUp) {
			return r.ctx.Err()
		}
	case <-o.ended:
	}
	select {
	case err := <-r.done:
		return err
	case <-o.ended:
	}
	select {
	case err := <-r.done:
		return err
	default:
		return ErrStopped
	}
}

// loop serves until a last request is done.
func (o *owner) loop() {
	defer close(o.ended)
	tick := time.NewTicker(o.cfg.checkInterval())
	defer tick.Stop()
	o.monitor = newMonitor(o.cfg.NetNS, o.keeper.concerns, o.keeper.port)
	defer o.monitor.close()
	for {
		select {
		case r := <-o.requests:
			for r != nil {
				if r.run != nil {
					if r.begin() {
						r.done <- r.run()
					}
					if r.last {
						return
					}
					break
				}
				r = o.commit(o.gather(r))
			}
		case <-o.monitor.wake:
			o.look(o.monitor.take())
		case <-tick.C:
			o.look(changedRules)
		}
	}
}

// gather takes the windows of all requests that wait, up to one that cannot be
// joined.
func (o *owner) gather(first *request) (batch []*request, next *request) {
	batch = append(batch, first)
	for n := len(first.windows); n < maxCommit; {
		select {
		case r := <-o.requests:
			if r.run != nil {
				return batch, r
			}
			batch = append(batch, r)
			n += len(r.windows)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// commit applies the requests, together if that works and else one by one, and
// answers each. It passes next on.
func (o *owner) commit(batch []*request, next *request) *request {
	all := map[key]time.Time{}
	var valid []*request
	for _, r := range batch {
		if !r.begin() {
			continue
		}
		changes, err := o.changes(r)
		if err != nil {
			r.done <- err
			continue
		}
		for k, expires := range changes { // the later request decides
			all[k] = expires
		}
		valid = append(valid, r)
	}
	err := o.apply(all)
	if err == nil || len(valid) == 1 {
		for _, r := range valid {
			r.done <- err
		}
		return next
	}
	for _, r := range valid {
		changes, err := o.changes(r)
		if err == nil {
			err = o.apply(changes)
		}
		r.done <- err
	}
	return next
}

// apply sends the changes in commits of a bounded size; if the table is gone it
// is repaired first.
func (o *owner) apply(changes map[key]time.Time) error {
	part := changes
	for len(changes) > 0 {
		if len(changes) > maxCommit {
			part = make(map[key]time.Time, maxCommit)
			for k, expires := range changes {
				if part[k] = expires; len(part) == maxCommit {
					break
				}
			}
		} else {
			part = changes
		}
		err := o.keeper.apply(part)
		if isAbsent(err) {
			if err = o.heal("the table is gone"); err == nil {
				err = o.keeper.apply(part)
			}
		}
		if err != nil {
			return fmt.Errorf("changing %d windows: %w", len(part), err)
		}
		if len(part) == len(changes) {
			return nil
		}
		for k := range part {
			delete(changes, k)
		}
	}
	return nil
}

// changes checks the windows of a request and brings them to their normal form.
func (o *owner) changes(r *request) (map[key]time.Time, error) {
	now := time.Now()
	m := make(map[key]time.Time, len(r.windows))
	for _, w := range r.windows {
		k, err := keyOf(w)
		if err != nil {
			return nil, err
		}
		switch {
		case r.close:
			w.Expires = time.Time{}
		case w.Expires.IsZero():
			return nil, fmt.Errorf("window of %v to service %s: no expiry", w.Prefix, w.Service)
		case !w.Expires.After(now):
			return nil, fmt.Errorf("window of %v to service %s: %w", w.Prefix, w.Service, ErrExpired)
		}
		if !o.names[w.Service] {
			if r.close {
				continue
			}
			return nil, fmt.Errorf("window of %v to service %s: %w", w.Prefix, w.Service, ErrUnknownService)
		}
		m[k] = w.Expires
	}
	return m, nil
}

// setup installs and takes over.
func (o *owner) setup(cfg Config, services []*knockcore.Service) error {
	if _, err := o.keeper.install(cfg, services); err != nil {
		return err
	}
	o.cfg, o.services, o.names = cfg, services, map[string]bool{}
	for _, s := range services {
		o.names[s.Name] = true
	}
	o.healErr = nil
	return o.keeper.adopt()
}

// look sees to what changed.
func (o *owner) look(c changed) {
	reason, err := o.keeper.verify()
	switch {
	case errors.Is(err, ErrStopped):
	case err != nil:
		o.healErr = err
	case reason != "":
		_ = o.heal(reason)
	case c&changedElements != 0:
		o.healErr = o.keeper.adopt()
	default:
		o.healErr = nil
	}
}

// heal repairs the table, unless that was done too often lately.
func (o *owner) heal(reason string) error {
	start := time.Now()
	o.credit = min(healBurst, o.credit+start.Sub(o.credited).Seconds()/healPause.Seconds())
	o.credited = start
	if o.credit < 1 {
		o.healErr = fmt.Errorf("%s: others change it all the time", reason)
		o.monitor.again(healPause)
		return o.healErr
	}
	o.credit--
	restored, err := o.keeper.install(o.cfg, o.services)
	repeated := err != nil && o.healErr != nil && err.Error() == o.healErr.Error()
	o.healErr = err
	if err == nil {
		o.heals.Add(1)
	} else {
		o.monitor.again(healPause)
	}
	if o.cfg.OnHeal != nil && !repeated {
		o.cfg.OnHeal(Heal{Reason: reason, Windows: restored, Took: time.Since(start), Err: err})
	}
	return err
}
