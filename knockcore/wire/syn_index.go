// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// SYNIndexConfig says which SYN knocks a SYNIndex recognises.
type SYNIndexConfig struct {
	// Keyring holds the clients.
	Keyring *knockcore.Keyring
	// Methods enables MethodTCPSYN, MethodTCPSYNSeq or both.
	Methods knockcore.MethodSet
	// Ports are the protected ports, distinct, 1 to 65535.
	Ports []uint16
	// SlotSeconds is the length of tcp-syn's slots, SeqSlotSeconds that of
	// tcp-syn-seq's, in seconds; 0 means DefaultSYNSlot. Senders must be
	// configured with the same.
	SlotSeconds, SeqSlotSeconds int64
	// Length is the number of parts of a tcp-syn-seq knock, 2 to 5; 0 means
	// DefaultSequenceLength.
	Length int
	// Legacy also recognises tcp-syn-seq's older namespace, whose parts go to any
	// port from 1024 to 65534.
	Legacy bool
}

// MaxSYNTags is how many tags a SYNIndex may hold: slots (4 of each method) ×
// credentials × ports × tags of one knock. A full one takes about 125 MB, and
// 220 MB while it is replaced.
const MaxSYNTags = 1 << 21

const (
	// synSlots is how many slots of each method are held: the three that are
	// valid, and one ahead, so that a slot's end needs no work at that moment.
	synSlots = 4

	synLegacy = 1 << 7 // in synRef.part
)

// SYNIndex recognises SYN knocks: one look-up in a map says whose a SYN is,
// however many clients there are, so that a flood of foreign SYNs costs a hash
// each and not, as in libknock, some HMACs for each client. For that it holds
// the tags of the slots around now. It is safe for concurrent use; readers do
// not lock.
//
// Why a map keyed by tags leaks nothing that matters: an attacker who could see
// look-ups take longer the more of a tag is right would gain from trying tags
// piece by piece. The map is reached by a seeded hash of all 12 bytes, so a
// partly right tag lands anywhere; and a tag is worth one knock within its slot.
type SYNIndex struct {
	creds []knockcore.Credential
	ports []uint16
	kinds [2]synKind // tcp-syn, tcp-syn-seq
	mu    sync.Mutex // held to replace table
	table atomic.Pointer[synTable]
}

// synKind is one of the two methods; without parts it is not enabled.
type synKind struct {
	method      knockcore.Method
	slotSeconds int64
	parts       []uint8 // index of each tag of a knock, synLegacy or'ed in
	total       uint8
}

// synKey is a tag as it comes in: sequence number, window, TSval, destination
// port, all big endian.
type synKey [12]byte

// synRef says what a tag stands for, in 8 bytes as there may be many.
type synRef struct {
	cred uint32 // in SYNIndex.creds
	port uint16 // protected
	part uint8  // index; synLegacy
	slot uint8  // from synTable.first of the kind; the high bit is the kind
}

type synTagged struct {
	key synKey
	ref synRef // without slot
}

// synTable is immutable.
type synTable struct {
	first [2]int64 // lowest slot of each kind
	slots [2][synSlots][]synTagged
	tags  map[synKey]synRef
}

// NewSYNIndex computes the tags of the slots around now.
func NewSYNIndex(cfg SYNIndexConfig, now time.Time) (*SYNIndex, error) {
	length := orDefault(cfg.Length, DefaultSequenceLength)
	seqSlot, slot := orDefault(cfg.SeqSlotSeconds, DefaultSYNSlot), orDefault(cfg.SlotSeconds, DefaultSYNSlot)
	switch {
	case length < MinSYNSequence || length > MaxSYNSequence:
		return nil, synLengthError(length)
	case slot < 0 || seqSlot < 0:
		return nil, errors.New("a slot of SYN knocks lasts at least 1 second")
	}
	x := &SYNIndex{creds: cfg.Keyring.Credentials(), ports: slices.Clone(cfg.Ports)}
	if cfg.Methods.Has(knockcore.MethodTCPSYN) {
		x.kinds[0] = synKind{knockcore.MethodTCPSYN, slot, []uint8{0}, 1}
	}
	if cfg.Methods.Has(knockcore.MethodTCPSYNSeq) {
		k := synKind{knockcore.MethodTCPSYNSeq, seqSlot, nil, uint8(length)}
		for i := range k.total {
			k.parts = append(k.parts, i)
			if cfg.Legacy {
				k.parts = append(k.parts, i|synLegacy)
			}
		}
		x.kinds[1] = k
	}
	perPort := len(x.kinds[0].parts) + len(x.kinds[1].parts)
	if tags := int64(synSlots*perPort) * int64(len(x.creds)) * int64(len(x.ports)); tags > MaxSYNTags {
		return nil, fmt.Errorf("SYN knocks of %d secrets to %d ports take %d tags, at most %d are held: enable them for fewer ports",
			len(x.creds), len(x.ports), tags, MaxSYNTags)
	}
	x.table.Store(x.build(&synTable{}, now))
	return x, nil
}

func synLengthError(length int) error {
	return fmt.Errorf("a tcp-syn-seq knock has %d to %d parts, not %d", MinSYNSequence, MaxSYNSequence, length)
}

// Lookup recognises a SYN by its destination port and fields, in the slot of now
// and the ones before and after it. It does not allocate. If the slots moved on
// by two since the tags were computed, it computes the missing ones itself while
// others wait; call Prepare in time to spare it that.
func (x *SYNIndex) Lookup(now time.Time, dstPort uint16, f SYNFields) (match SYNMatch, ok bool) {
	unix := now.Unix()
	t := x.table.Load()
	if !x.covers(t, unix) {
		t = x.advance(now)
	}
	ref, ok := t.tags[newSYNKey(f, dstPort)]
	if !ok {
		return SYNMatch{}, false
	}
	kind := &x.kinds[ref.slot>>7]
	slot := t.first[ref.slot>>7] + int64(ref.slot&^(1<<7))
	if current := SYNSlot(unix, kind.slotSeconds); slot < current-1 || slot > current+1 {
		return SYNMatch{}, false
	}
	return SYNMatch{
		Credential: &x.creds[ref.cred],
		Method:     kind.method,
		Port:       ref.port,
		Slot:       slot,
		Index:      ref.part &^ synLegacy,
		Total:      kind.total,
		Legacy:     ref.part&synLegacy != 0,
	}, true
}

// Prepare computes the tags of slots that will be needed next, unless it has
// been done. Called once in each slot, for instance at half its length from a
// timer, it keeps that work out of Lookup.
func (x *SYNIndex) Prepare(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.table.Load()
	for i, k := range x.kinds {
		if k.parts != nil && t.first[i] != SYNSlot(now.Unix(), k.slotSeconds)-1 {
			x.table.Store(x.build(t, now))
			return
		}
	}
}

func (x *SYNIndex) advance(now time.Time) *synTable {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.table.Load()
	if !x.covers(t, now.Unix()) { // nobody else did it meanwhile
		t = x.build(t, now)
		x.table.Store(t)
	}
	return t
}

// covers reports whether the table has all three slots of each kind.
func (x *SYNIndex) covers(t *synTable, unix int64) bool {
	for i := range x.kinds {
		k := &x.kinds[i]
		if current := SYNSlot(unix, k.slotSeconds); k.parts != nil && (current-1 < t.first[i] || current+1 >= t.first[i]+synSlots) {
			return false
		}
	}
	return true
}

func newSYNKey(f SYNFields, port uint16) (k synKey) {
	binary.BigEndian.PutUint32(k[0:], f.Seq)
	binary.BigEndian.PutUint16(k[4:], f.Window)
	binary.BigEndian.PutUint32(k[6:], f.TSval)
	binary.BigEndian.PutUint16(k[10:], port)
	return k
}
