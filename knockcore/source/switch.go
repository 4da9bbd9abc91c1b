// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Stats counts what became of packets.
type Stats struct {
	// Received is how many packets were read.
	Received atomic.Uint64
	// Full is how many found no place in the queue.
	Full atomic.Uint64
	// Limited is how many came from an address over its limit while the queue was
	// over half full.
	Limited atomic.Uint64
	// Unattended is how many came while nobody was there to decide.
	Unattended atomic.Uint64
}

// Switch passes the packets of a source on to the queue that was attached last.
type Switch struct {
	stats   *Stats
	current atomic.Pointer[Queue]
	mu      sync.Mutex
	stack   []*Queue
}

// NewSwitch makes a switch that counts in stats; nil means that nobody wants to
// know. With nothing attached, it drops what comes.
func NewSwitch(stats *Stats) *Switch {
	if stats == nil {
		stats = new(Stats)
	}
	return &Switch{stats: stats}
}

// Attach makes q the queue that gets the packets until another one is attached.
// When q is detached, the one attached last of those that are still there gets
// them. q must be detached before it is closed: then a packet that finds it closed
// goes to its successor, and none is lost.
func (s *Switch) Attach(q *Queue) (detach func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stack = append(s.stack, q)
	s.current.Store(q)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stack = slices.DeleteFunc(s.stack, func(other *Queue) bool { return other == q })
		if n := len(s.stack); n > 0 {
			s.current.Store(s.stack[n-1])
		} else {
			s.current.Store(nil)
		}
	}
}

// Sink takes a packet: see the type of that name.
func (s *Switch) Sink(p *Packet) {
	s.stats.Received.Add(1)
	for {
		q := s.current.Load()
		if q == nil {
			s.stats.Unattended.Add(1)
			return
		}
		switch q.push(p) {
		case dropFull:
			s.stats.Full.Add(1)
		case dropLimited:
			s.stats.Limited.Add(1)
		case queueClosed:
			if s.current.Load() != q {
				continue // another one took over meanwhile
			}
			s.stats.Unattended.Add(1)
		}
		return
	}
}
