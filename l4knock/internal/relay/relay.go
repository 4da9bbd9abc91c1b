// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Relay is one pair of connections. Make it with [New], call Run once; Cut and
// Stats may be called at any time, from anywhere.
type Relay struct {
	down, up     endpoint
	toUp, toDown direction
	idle         *idleWatch
	onDone       func(Stats)
	start        time.Time
	duration     atomic.Int64 // ns, once Run is done
	ending       atomic.Pointer[ending]
	wg           sync.WaitGroup
	grace        *time.Timer // set by the direction that failed first, if it left time
}

// ending is how a relay ends; the first one counts.
type ending struct {
	cause Cause
	err   error
}

// New prepares a relay and takes over both connections: Run closes them. head
// holds bytes that were already read from down; they go to up first, behind the
// PROXY protocol header if opts asks for one. head must stay as it is until Run
// returns; opts is free at once. Nothing is sent before Run.
func New(down net.Conn, head []byte, up net.Conn, opts *Options) *Relay {
	r := &Relay{onDone: opts.OnDone, start: time.Now()}
	r.down.init(down)
	r.up.init(up)
	r.toUp.init(r, &r.down, &r.up)
	r.toDown.init(r, &r.up, &r.down)
	header, err := opts.proxyHeader(down)
	if err != nil {
		r.ending.Store(&ending{CauseUp, err})
	}
	r.toUp.header, r.toUp.head = header, head
	if opts.IdleTimeout > 0 {
		r.idle = newIdleWatch(r, opts.IdleTimeout)
	}
	r.down.tune(opts)
	r.up.tune(opts)
	return r
}

// Run is New and Run in one.
func Run(ctx context.Context, down net.Conn, head []byte, up net.Conn, opts *Options) Stats {
	return New(down, head, up, opts).Run(ctx)
}

// Run relays until both directions have ended, something fails, or the relay is
// cut, and closes both connections. It occupies the caller's goroutine and one
// more.
//
// An end (FIN) is passed on by itself: the other direction goes on for as long as
// it likes. A reset, or any other failure, ends both directions, and the other
// peer sees a reset too, so that nobody takes half an answer for a whole one. The
// end of ctx is a [Relay.Cut] with its cause.
func (r *Relay) Run(ctx context.Context) Stats {
	r.down.clearDeadline()
	r.up.clearDeadline()
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, func() { r.Cut(context.Cause(ctx)) })()
	}
	if r.ending.Load() != nil { // cut before it ran, or no header
		r.abort()
	} else {
		if r.idle != nil {
			r.idle.begin()
			defer r.idle.end()
		}
		r.wg.Go(r.toDown.run)
		r.toUp.run()
		r.wg.Wait()
	}
	r.finish()

	stats := r.Stats()
	if r.onDone != nil {
		r.onDone(stats)
	}
	return stats
}

// Cut ends the relay at once, whatever its directions wait for. Both peers see a
// reset. The first cause becomes the Err of the Stats; nil means [ErrCut].
func (r *Relay) Cut(cause error) {
	if cause == nil {
		cause = ErrCut
	}
	r.ending.CompareAndSwap(nil, &ending{CauseCut, cause})
	r.abort()
}

// Stats is what the relay has done so far.
func (r *Relay) Stats() Stats {
	s := Stats{
		Up: r.toUp.moved.Load(), Down: r.toDown.moved.Load(),
		Spliced:  r.toUp.spliced.Load() + r.toDown.spliced.Load(),
		Duration: time.Duration(r.duration.Load()),
	}
	if s.Duration == 0 {
		s.Duration = time.Since(r.start)
	}
	if e := r.ending.Load(); e != nil {
		s.Cause, s.Err = e.cause, e.err
	}
	return s
}
