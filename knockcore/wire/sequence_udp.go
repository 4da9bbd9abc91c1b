// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"container/list"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// DefaultSequenceMemory is how long the ID of a finished or expired UDP sequence
// is remembered at least.
const DefaultSequenceMemory = 2 * time.Minute

// UDPSequenceConfig describes the sequences of one receiver (libknock.md section
// 6.3). The zero value is libknock's default.
type UDPSequenceConfig struct {
	// Length is the number of parts, 2 to 8; 0 means DefaultSequenceLength.
	// Senders must be configured with the same.
	Length int
	// Window is how long a sequence may take, measured from the first part that
	// arrives; a part at exactly the window is in time. 0 means
	// DefaultSequenceWindow.
	Window time.Duration
	// Memory is how long the ID of a finished or expired sequence is refused as a
	// replay, longer than Window; 0 means DefaultSequenceMemory or, if that is
	// more, twice the window.
	Memory time.Duration
	// MaxPerSource is how many sequences one address may have unfinished; 0 means
	// DefaultOpenPerSource.
	MaxPerSource int
	// MaxOpen is how many sequences may be unfinished in total, and likewise how
	// many IDs are remembered; 0 means DefaultOpenSequences.
	MaxOpen int
}

// UDPSequences puts the parts of udp-seq and udp-passive-seq knocks together. It
// is bounded, needs no goroutine, and is safe for concurrent use.
//
// Expired sequences go whenever a part arrives; between parts they take up the
// bounded room that they have, which Sweep frees.
//
// The memory of IDs is no replay protection: that is the replay guard's, in which
// each part's nonce is spent before Add. So the oldest ID may be forgotten when
// the memory is full; its owner could then use the ID once more.
type UDPSequences struct {
	length int
	memory time.Duration

	mu   sync.Mutex
	open *openTable[udpSequenceKey, udpSequence]
	done map[udpSequenceKey]struct{}
	past list.List // of udpPast, oldest first; the keys of done
}

type udpSequenceKey struct {
	src    netip.Addr
	client string
	id     [16]byte
	port   uint16
	method knockcore.Method
}

type udpSequence struct {
	session string
	parts   uint8 // bit i: part i has arrived
}

type udpPast struct {
	key   udpSequenceKey
	until time.Time
}

// NewUDPSequences checks the configuration and makes the tracker.
func NewUDPSequences(cfg UDPSequenceConfig) (*UDPSequences, error) {
	length := orDefault(cfg.Length, DefaultSequenceLength)
	if length < MinUDPSequence || length > MaxUDPSequence {
		return nil, fmt.Errorf("a UDP sequence has %d to %d parts, not %d", MinUDPSequence, MaxUDPSequence, cfg.Length)
	}
	t, err := newOpenTable[udpSequenceKey, udpSequence](cfg.Window, cfg.MaxPerSource, cfg.MaxOpen)
	if err != nil {
		return nil, err
	}
	memory := orDefault(cfg.Memory, max(DefaultSequenceMemory, 2*t.window))
	if memory <= t.window {
		return nil, fmt.Errorf("finished sequences must be remembered for longer than the window of %v, not for %v", t.window, memory)
	}
	return &UDPSequences{length: length, memory: memory, open: t, done: make(map[udpSequenceKey]struct{})}, nil
}

// Add takes one authentic part, whose nonce the caller has already spent. It
// reports true for the part that completes its knock; parts may come in any
// order. The knock is then d's: all parts have the same client, source address
// (the port does not matter), port, method, sequence ID and session.
//
// A refused part changes nothing. The reasons are ReasonMalformed (not a part of
// a sequence, or not of the configured length), ReasonReplay (a part that is
// there already, or a sequence that is finished or expired), ReasonAuthFailed
// (another session ID than the first part's) and ReasonLimited.
func (u *UDPSequences) Add(now time.Time, src netip.Addr, client string, d *Datagram) (complete bool, err error) {
	refuse := func(reason knockcore.Reason, detail string) (bool, error) {
		return false, &knockcore.Refusal{Reason: reason, Client: client, Detail: detail}
	}
	switch {
	case !d.Sequence || !d.NeedsSequence():
		return refuse(knockcore.ReasonMalformed, "not a part of a sequence")
	case int(d.Total) != u.length || d.Index >= d.Total:
		return refuse(knockcore.ReasonMalformed, "sequence of another length than configured")
	}
	key := udpSequenceKey{sourceKey(src), client, d.SequenceID, d.Port, d.Method}
	bit := uint8(1) << d.Index

	u.mu.Lock()
	defer u.mu.Unlock()
	u.sweep(now)
	if _, over := u.done[key]; over {
		return refuse(knockcore.ReasonReplay, "the sequence is over")
	}
	e := u.open.entries[key]
	switch {
	case e == nil:
		if e, err = u.open.open(now, key, key.src, client); err != nil {
			return false, err
		}
		e.state.session = string(d.Session)
	case e.state.parts&bit != 0:
		return refuse(knockcore.ReasonReplay, "this part of the sequence is there already")
	case e.state.session != string(d.Session):
		return refuse(knockcore.ReasonAuthFailed, "session ID differs from the first part's")
	}
	e.state.parts |= bit
	if e.state.parts != uint8(1<<u.length-1) {
		return false, nil
	}
	u.open.remove(e)
	u.remember(key, now)
	return true, nil
}

// Sweep forgets what expired. Calling it is never necessary.
func (u *UDPSequences) Sweep(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sweep(now)
}

// Len is the number of unfinished sequences, expired ones included that were not
// swept yet.
func (u *UDPSequences) Len() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.open.entries)
}

func (u *UDPSequences) sweep(now time.Time) {
	for first := u.past.Front(); first != nil; first = u.past.Front() {
		past := first.Value.(udpPast)
		// As in openTable.sweep, a clock that was set back far ends it too.
		if left := past.until.Sub(now); left > 0 && left <= 2*u.memory {
			break
		}
		u.past.Remove(first)
		delete(u.done, past.key)
	}
	u.open.sweep(now, func(e *openEntry[udpSequenceKey, udpSequence]) { u.remember(e.key, now) })
}

// remember notes that the sequence is over, at the cost of the oldest one if the
// memory is full.
func (u *UDPSequences) remember(key udpSequenceKey, now time.Time) {
	if u.past.Len() >= u.open.capacity {
		delete(u.done, u.past.Remove(u.past.Front()).(udpPast).key)
	}
	u.past.PushBack(udpPast{key, now.Add(u.memory)})
	u.done[key] = struct{}{}
}
