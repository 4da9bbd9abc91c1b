// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver

import (
	"container/list"
	"net"
	"sync"
	"time"
)

// Pending bounds the streams that are undecided: accepted, but neither admitted
// nor known to be a stranger's. When it is full, the one that has waited longest
// is decided at once, as if its time were up: it goes where strangers go. So
// silent streams never keep a client out, who sends its frame at once.
//
// One Pending may serve many listeners. The zero value is not usable.
type Pending struct {
	mu      sync.Mutex
	limit   int
	waiting list.List // of *ticket, oldest first
	evicted uint64
}

// ticket is a stream's place among the undecided.
type ticket struct {
	conn    net.Conn
	element *list.Element // nil once the place was given up
	evicted bool
}

// NewPending makes a bound of limit streams; DefaultPending() if it is not
// positive.
func NewPending(limit int) *Pending {
	if limit <= 0 {
		limit = DefaultPending()
	}
	return &Pending{limit: limit}
}

// DefaultPending is an eighth of the file limit of this process, between 64 and
// 65,536: each undecided stream costs a descriptor, and each stranger's stream
// another one or two at the cover.
func DefaultPending() int { return min(max(fileLimit()/8, 64), 1<<16) }

// Limit is the greatest number of undecided streams.
func (p *Pending) Limit() int { return p.limit }

// Len is the number of undecided streams.
func (p *Pending) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting.Len()
}

// Evicted counts the streams that were decided early to make room.
func (p *Pending) Evicted() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.evicted
}

// enter takes a place for conn and sets its read deadline. Both happen under
// one lock, so that a later eviction's deadline is the one that counts.
func (p *Pending) enter(conn net.Conn, deadline time.Time) (*ticket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting.Len() >= p.limit {
		p.evictOldest()
	}
	t := &ticket{conn: conn}
	t.element = p.waiting.PushBack(t)
	return t, conn.SetReadDeadline(deadline)
}

// evict decides the stream that has waited longest; false if there is none.
func (p *Pending) evict() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.evictOldest()
}

// evictOldest is evict for a caller who holds the lock.
func (p *Pending) evictOldest() bool {
	front := p.waiting.Front()
	if front == nil {
		return false
	}
	oldest := front.Value.(*ticket)
	oldest.evicted = true
	p.evicted++
	p.giveUp(oldest)
	return true
}

// giveUp takes the place away and wakes who reads. The caller holds the lock.
func (p *Pending) giveUp(t *ticket) {
	p.waiting.Remove(t.element)
	t.element = nil
	_ = t.conn.SetReadDeadline(time.Unix(1, 0))
}

// interrupt ends the wait before its time; it does nothing after leave.
func (p *Pending) interrupt(t *ticket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.element != nil {
		p.giveUp(t)
	}
}

// leave gives the place back, clears the read deadline and reports whether the
// stream was evicted.
func (p *Pending) leave(t *ticket) (evicted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.element != nil {
		p.waiting.Remove(t.element)
		t.element = nil
	}
	_ = t.conn.SetReadDeadline(time.Time{})
	return t.evicted
}
