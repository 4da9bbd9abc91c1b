// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"sync"
	"sync/atomic"
)

// The lanes of a shard.
const (
	laneGood = iota
	laneOther
	laneCount
)

// otherTurn is how often the lane of strangers goes first: every so many packets.
const otherTurn = 4

// shard is the part of a queue that one worker serves.
type shard struct {
	mu     sync.Mutex
	wake   sync.Cond
	lanes  [laneCount]ring
	turn   uint
	closed bool

	others atomic.Int64 // packets in the lane of strangers
}

func (s *shard) init(size int) {
	s.wake.L = &s.mu
	for i := range s.lanes {
		s.lanes[i].slots = make([]Packet, size)
	}
}

// busy reports whether the strangers' lane is over half full.
func (s *shard) busy() bool { return 2*s.others.Load() > int64(len(s.lanes[laneOther].slots)) }

func (s *shard) push(lane int, p *Packet) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return queueClosed
	}
	if !s.lanes[lane].push(p) {
		return dropFull
	}
	s.count()
	s.wake.Signal()
	return queued
}

// count publishes how full the lane of strangers is.
func (s *shard) count() { s.others.Store(int64(s.lanes[laneOther].used)) }

// pop exchanges p for the next packet; it waits for one. It returns false when
// the shard is closed and empty.
func (s *shard) pop(p *Packet) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.lanes[laneGood].used+s.lanes[laneOther].used == 0 {
		if s.closed {
			return false
		}
		s.wake.Wait()
	}
	lane := laneGood
	if s.turn++; s.turn%otherTurn == 0 || s.lanes[laneGood].used == 0 {
		lane = laneOther
	}
	if s.lanes[lane].used == 0 {
		lane = laneGood
	}
	s.lanes[lane].pop(p)
	s.count()
	return true
}

func (s *shard) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.wake.Broadcast()
}

// clear drops what waits.
func (s *shard) clear() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for i := range s.lanes {
		n += s.lanes[i].used
		s.lanes[i].used = 0
	}
	s.count()
	return n
}

func (s *shard) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lanes[laneGood].used + s.lanes[laneOther].used
}

// ring is a bounded queue of packets. A place keeps its memory, which grows to the
// longest payload that was in it.
type ring struct {
	slots []Packet
	head  int
	used  int
}

func (r *ring) push(p *Packet) bool {
	if r.used == len(r.slots) {
		return false
	}
	r.slots[(r.head+r.used)%len(r.slots)].copyFrom(p)
	r.used++
	return true
}

// pop exchanges p for the first packet.
func (r *ring) pop(p *Packet) {
	r.slots[r.head], *p = *p, r.slots[r.head]
	r.head = (r.head + 1) % len(r.slots)
	r.used--
}
