// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const (
	// queueLen is how many calls may wait before callers block.
	queueLen = 4096
	// maxCommit is how many windows go out in one commit at most. The kernel needs
	// some microseconds for each, and a window begins to run when it gets to it.
	maxCommit = 1024
	// forgetEvery is how often windows that ran out are dropped from memory.
	forgetEvery = time.Minute
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
	if err := r.ctx.Err(); err != nil { // else a select may not see it
		return err
	}
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
	forgot := time.Now()
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
		case now := <-tick.C:
			o.look(changedRules)
			if now.Sub(forgot) > forgetEvery {
				o.keeper.forget()
				forgot = now
			}
		}
	}
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
