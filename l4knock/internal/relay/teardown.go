// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"syscall"
	"time"
)

// resetGrace is how long a peer may take over what was sent to it before the reset
// that the other peer caused.
const resetGrace = time.Second

// abort resets both connections, which wakes whoever waits on them.
func (r *Relay) abort() {
	r.down.reset()
	r.up.reset()
}

// abortAfter resets both connections, dst only when it has what was sent to it.
func (r *Relay) abortAfter(src, dst *endpoint) {
	src.reset()
	dst.flush(resetGrace)
	dst.reset()
}

// expire ends the relay in an orderly way.
func (r *Relay) expire(cause Cause, err error) {
	if r.ending.CompareAndSwap(nil, &ending{cause, err}) {
		r.down.wake()
		r.up.wake()
	}
}

// ended is called by a direction whose source has sent its end, all bytes before
// it being delivered.
func (r *Relay) ended(d *direction) {
	switch {
	case r.ending.Load().failed():
		r.abortAfter(d.src, d.dst) // that was the rest of a connection that failed
	case d.src.wasReset():
		r.failed(d, d.src, d.src.opError("read", syscall.ECONNRESET))
	case !d.dst.closeWrite():
		r.expire(CauseDone, nil)
	}
}

// failed is called by a direction that can't go on, since e failed with err.
func (r *Relay) failed(d *direction, e *endpoint, err error) {
	cause := CauseUp
	if e == &r.down {
		cause = CauseDown
	}
	first := r.ending.CompareAndSwap(nil, &ending{cause, err})
	switch {
	case e == d.src:
		if first || r.ending.Load().failed() {
			r.abortAfter(d.src, d.dst)
		}
	case first && !gone(err):
		r.abort()
	case first:
		// A connection that takes no more may still hold what its peer sent before,
		// such as an early refusal. The other direction delivers that, if the peer
		// over there takes it, and then ends as well.
		r.grace = time.AfterFunc(resetGrace, r.abort)
	}
}

// finish closes what is still open. An orderly end must not hide a loss.
func (r *Relay) finish() {
	if r.grace != nil {
		r.grace.Stop()
	}
	r.ending.CompareAndSwap(nil, &ending{cause: CauseDone})
	e := r.ending.Load()
	lost := r.toUp.lost || r.toDown.lost
	if e.cause == CauseIdle { // a slow peer may have kept us from reading the other one
		lost = lost || r.down.unread()+r.up.unread() > 0
	}
	if e.failed() || lost {
		r.abort()
	}
	_ = r.down.conn.Close()
	_ = r.up.conn.Close()
	r.duration.Store(max(1, int64(time.Since(r.start))))
}

// failed tells whether a connection failed.
func (e *ending) failed() bool {
	return e != nil && (e.cause == CauseDown || e.cause == CauseUp)
}
