// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package engine is what the firewalls that are not ours have in common: one
// goroutine owns the firewall, joins what is asked of it at the same time, knows
// which windows should be open, ends those that are over, and puts back what
// others break. How a window is opened is a [Backend]'s business.
package engine

import (
	"context"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Backend is a kind of firewall. One goroutine calls it, in the network
// namespace of the configuration. Contexts have a deadline.
type Backend interface {
	// Accepts reports what of the services the backend can't do. It touches nothing.
	Accepts(services []*knockcore.Service) error
	// List returns the windows of the services that are really open, no matter who
	// opened them: an earlier process of ours, perhaps.
	List(ctx context.Context, services []*knockcore.Service) (Windows, error)
	// Install makes the gate stand for exactly the services with exactly the
	// windows, whatever stands there now, without opening anything meanwhile.
	Install(ctx context.Context, services []*knockcore.Service, windows Windows) error
	// Apply makes the changes: all of them or, with an error, none.
	Apply(ctx context.Context, changes []Change) error
	// Verify says what is not as it should be, or "".
	Verify(ctx context.Context, windows Windows) (broken string, err error)
	// Remove takes all that is ours away.
	Remove(ctx context.Context) error
	// Close lets go of connections and leaves the firewall as it is.
	Close()
}

// Waker is a Backend that learns by itself that something happened.
type Waker interface {
	// Wake is ready when Verify should be called at once.
	Wake() <-chan struct{}
}

// Heal is a repair of what others broke.
type Heal struct {
	// Reason says what was found.
	Reason string
	// Windows is how many windows were put back.
	Windows int
	// Took is how long the repair took.
	Took time.Duration
	// Err is why the repair failed; it is tried again, and told again when the
	// reason is another.
	Err error
}

// Options are how the goroutine works.
type Options struct {
	// CheckInterval is how often it looks whether the gate stands; 0 means
	// DefaultCheckInterval.
	CheckInterval time.Duration
	// MaxBatch is how many calls are joined to one change at most; 0 means 256.
	MaxBatch int
	// OnHeal, if set, is told of every repair. It must not block, nor call the
	// engine.
	OnHeal func(Heal)
	// NetNS is a file descriptor of the network namespace to work in; 0 means that
	// of the process.
	NetNS int
}

// DefaultCheckInterval is how often a gate is looked at where nobody says.
const DefaultCheckInterval = 2 * time.Second
