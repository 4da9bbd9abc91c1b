// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"time"
)

// Cause says why a relay ended. It is fit for a metric label.
type Cause uint8

// The causes. The zero Cause is that of a relay that still runs.
const (
	// CauseDone: both peers sent an end, and all their bytes were delivered. If a
	// connection can't be closed halfway, the end of the other one suffices.
	CauseDone Cause = iota + 1
	// CauseCut: Cut was called, or the context ended.
	CauseCut
	// CauseIdle: no byte moved for IdleTimeout.
	CauseIdle
	// CauseDown: the downstream connection failed, mostly by a reset.
	CauseDown
	// CauseUp: the upstream connection failed, mostly by a reset; or there was no
	// way to make a PROXY protocol header for it.
	CauseUp
)

// String is "done", "cut", "idle", "down_failed", "up_failed", or "running".
func (c Cause) String() string {
	switch c {
	case CauseDone:
		return "done"
	case CauseCut:
		return "cut"
	case CauseIdle:
		return "idle"
	case CauseDown:
		return "down_failed"
	case CauseUp:
		return "up_failed"
	}
	return "running"
}

// ErrCut is the Err of a relay that was cut without a reason of its own.
var ErrCut = errors.New("relay cut")

// ErrIdle is the Err of a relay that ended by its idle timeout.
var ErrIdle = errors.New("relay idle for too long")

// Stats is what a relay did.
type Stats struct {
	// Up and Down count the payload bytes handed to the upstream's and to the
	// downstream's socket. A PROXY protocol header is not among them.
	Up, Down int64
	// Spliced counts those of Up and Down that never entered user space.
	Spliced int64
	// Duration is how long the relay has run, or ran.
	Duration time.Duration
	// Cause is why it ended.
	Cause Cause
	// Err is nil if Cause is CauseDone; [ErrIdle]; what Cut or the context gave; or
	// the error of the connection that failed.
	Err error
}
