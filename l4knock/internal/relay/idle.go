// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"sync/atomic"
	"time"
)

// idleWatch ends a relay that has been silent for timeout. Moving bytes costs one
// store; there is one timer, which looks after the silence that is left.
type idleWatch struct {
	relay   *Relay
	timeout time.Duration
	last    atomic.Int64 // when bytes last moved, in ns since relay.start
	timer   *time.Timer
	taken   [2]int64 // how much each peer had taken in when the timer last fired
}

func newIdleWatch(r *Relay, timeout time.Duration) *idleWatch {
	return &idleWatch{relay: r, timeout: timeout}
}

func (w *idleWatch) begin() {
	w.touch()
	w.timer = time.AfterFunc(1<<62, w.look) // Reset orders the store before look
	w.timer.Reset(w.timeout)
}

func (w *idleWatch) end() { w.timer.Stop() }

func (w *idleWatch) touch() { w.last.Store(int64(time.Since(w.relay.start))) }

// look ends the relay or sets the timer for when it may have to.
func (w *idleWatch) look() {
	r := w.relay
	silent := time.Since(r.start) - time.Duration(w.last.Load())
	if silent >= w.timeout {
		// Nothing has moved through us. A slow peer may still be taking in what we
		// handed to the kernel, megabytes perhaps.
		taken := [2]int64{r.down.taken(r.toDown.moved.Load()), r.up.taken(r.toUp.moved.Load())}
		delivered := r.down.queued()+r.up.queued() == 0 && !r.toDown.writing.Load() && !r.toUp.writing.Load()
		if delivered || taken == w.taken {
			r.expire(CauseIdle, ErrIdle)
			return
		}
		w.taken, silent = taken, 0
	}
	w.timer.Reset(w.timeout - silent)
}
