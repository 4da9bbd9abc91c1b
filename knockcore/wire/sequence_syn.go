// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"sync"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// SYNSequenceConfig describes the tcp-syn-seq knocks of one receiver (libknock.md
// section 7.2). The zero value is libknock's default.
type SYNSequenceConfig struct {
	// Length is the number of parts, 2 to 5; 0 means DefaultSequenceLength. It
	// must be that of the SYNIndex.
	Length int
	// Window is how long a sequence may take from part 0; a part at exactly the
	// window is in time. 0 means DefaultSequenceWindow.
	Window time.Duration
	// MaxPerSource is how many sequences one address may have unfinished; 0 means
	// DefaultOpenPerSource.
	MaxPerSource int
	// MaxOpen is how many sequences may be unfinished in total; 0 means
	// DefaultOpenSequences.
	MaxOpen int
}

// SYNSequences puts the parts of tcp-syn-seq knocks together. It is bounded,
// needs no goroutine, and is safe for concurrent use. Sequences expire as those
// of UDPSequences do.
type SYNSequences struct {
	length int
	mu     sync.Mutex
	open   *openTable[synSequenceKey, uint8] // the state is the next part's index
}

type synSequenceKey struct {
	src    netip.Addr
	client string
	slot   int64
	port   uint16
	legacy bool
}

// NewSYNSequences checks the configuration and makes the tracker.
func NewSYNSequences(cfg SYNSequenceConfig) (*SYNSequences, error) {
	length := orDefault(cfg.Length, DefaultSequenceLength)
	if length < MinSYNSequence || length > MaxSYNSequence {
		return nil, synLengthError(length)
	}
	t, err := newOpenTable[synSequenceKey, uint8](cfg.Window, cfg.MaxPerSource, cfg.MaxOpen)
	if err != nil {
		return nil, err
	}
	return &SYNSequences{length: length, open: t}, nil
}

// Add takes one part. It reports true for the part that completes its knock. All
// parts come in order, from one address, of one client, port, namespace and slot.
//
// Before it adds a part with Index 0, the caller spends m.ReplayNonce in the
// replay guard, and drops the part if that fails: this is the sequence's only
// replay mark. A sender that lost a part can therefore start over in the same
// slot while the sequence is unfinished: its second part 0 is dropped, and the
// parts after it fit.
//
// A refused part changes nothing. The reasons are ReasonMalformed (not a part of
// a sequence of the configured length, or not its turn), ReasonReplay (a part
// that is there already) and ReasonLimited.
func (q *SYNSequences) Add(now time.Time, src netip.Addr, m SYNMatch) (complete bool, err error) {
	client := m.Credential.Client.ID
	refuse := func(reason knockcore.Reason, detail string) (bool, error) {
		return false, &knockcore.Refusal{Reason: reason, Client: client, Detail: detail}
	}
	if m.Method != knockcore.MethodTCPSYNSeq || int(m.Total) != q.length || m.Index >= m.Total {
		return refuse(knockcore.ReasonMalformed, "not a part of a sequence of the configured length")
	}
	key := synSequenceKey{sourceKey(src), client, m.Slot, m.Port, m.Legacy}

	q.mu.Lock()
	defer q.mu.Unlock()
	q.open.sweep(now, nil)
	e := q.open.entries[key]
	switch {
	case e == nil && m.Index == 0:
		if e, err = q.open.open(now, key, key.src, client); err != nil {
			return false, err
		}
	case e == nil:
		return refuse(knockcore.ReasonMalformed, "sequence does not begin with its first part")
	case m.Index < e.state:
		return refuse(knockcore.ReasonReplay, "this part of the sequence is there already")
	case m.Index > e.state:
		return refuse(knockcore.ReasonMalformed, "part of the sequence before its turn")
	}
	e.state = m.Index + 1
	if e.state < m.Total {
		return false, nil
	}
	q.open.remove(e)
	return true, nil
}

// Sweep forgets what expired. Calling it is never necessary.
func (q *SYNSequences) Sweep(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open.sweep(now, nil)
}

// Len is the number of unfinished sequences, expired ones included that were not
// swept yet.
func (q *SYNSequences) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.open.entries)
}
