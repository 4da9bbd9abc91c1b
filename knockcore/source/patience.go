// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"sync"
	"time"
)

// admitTimeout bounds what becomes of one verified knock: a firewall or a store
// that takes longer makes it fail.
const admitTimeout = 10 * time.Second

// patience is a context that ends after admitTimeout. The timer is only made when
// somebody waits: with most stores and firewalls nobody does, and a datagram is
// cheaper than a timer.
type patience struct {
	parent   context.Context
	deadline time.Time

	once   sync.Once
	inner  context.Context
	cancel context.CancelFunc
}

func newPatience(parent context.Context) *patience {
	return &patience{parent: parent, deadline: time.Now().Add(admitTimeout)}
}

func (p *patience) start() context.Context {
	p.once.Do(func() { p.inner, p.cancel = context.WithDeadline(p.parent, p.deadline) })
	return p.inner
}

// end must be called when nobody will wait any more.
func (p *patience) end() {
	p.once.Do(func() { p.inner, p.cancel = ended, func() {} })
	p.cancel()
}

var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Deadline implements context.Context.
func (p *patience) Deadline() (time.Time, bool) { return p.start().Deadline() }

// Done implements context.Context.
func (p *patience) Done() <-chan struct{} { return p.start().Done() }

// Err implements context.Context.
func (p *patience) Err() error { return p.start().Err() }

// Value implements context.Context.
func (p *patience) Value(key any) any { return p.start().Value(key) }
