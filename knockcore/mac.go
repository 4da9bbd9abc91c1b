// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding"
	"fmt"
	"hash"
	"io"
	"sync"
)

// MAC is HMAC-SHA256 (RFC 2104) under one key, with the two keyed states
// computed once. It is immutable and safe for concurrent use; the scratch that a
// computation needs comes from the caller, so that scanning many clients
// neither allocates nor locks.
type MAC struct {
	states []byte // the inner one and the outer one, of equal length
}

func (m *MAC) inner() []byte { return m.states[:len(m.states)/2] }
func (m *MAC) outer() []byte { return m.states[len(m.states)/2:] }

const (
	macBlock  = 64
	macStates = 2 * 108 // as crypto/sha256 writes them
)

// The block is padded for the inner hash first, then for the outer one.
var innerPad, outerPad = padding(0x36), padding(0x36 ^ 0x5c)

func padding(with byte) (pad [macBlock]byte) {
	for i := range pad {
		pad[i] = with
	}
	return pad
}

// NewMAC prepares HMAC-SHA256 under key.
func NewMAC(key []byte) MAC { return MAC{appendMAC(make([]byte, 0, macStates), key)} }

// appendMAC appends the states of the MAC under key.
func appendMAC(states, key []byte) []byte {
	s := GetMACScratch()
	defer s.Free()
	s.setBlock(key)
	s.pad(&innerPad)
	states = s.appendState(states)
	s.pad(&outerPad)
	return s.appendState(states)
}

// hashState is what crypto/sha256 documents of its hashes.
type hashState interface {
	encoding.BinaryAppender
	encoding.BinaryUnmarshaler
}

// MACScratch is the working memory of MAC computations: one per goroutine.
type MACScratch struct {
	h     hash.Hash
	state hashState
	// Buf is where callers put the message: its bytes escape to the heap
	// otherwise.
	Buf   []byte
	block [macBlock]byte
	sum   [sha256.Size]byte
}

var macScratch = sync.Pool{New: func() any { return NewMACScratch() }}

// NewMACScratch makes a scratch with room for messages of usual size.
func NewMACScratch() *MACScratch {
	h := sha256.New()
	return &MACScratch{h: h, state: h.(hashState), Buf: make([]byte, 0, 256)}
}

// GetMACScratch takes a scratch from a pool; give it back with Free.
func GetMACScratch() *MACScratch { return macScratch.Get().(*MACScratch) }

// Free returns the scratch to the pool. It must not be used afterwards.
func (s *MACScratch) Free() {
	s.Buf = s.Buf[:0]
	macScratch.Put(s)
}

// SumWith is MAC.Sum for a key that is used once, so that its states are not
// worth keeping. The key may be the result of the computation before.
func (s *MACScratch) SumWith(key, msg []byte) *[sha256.Size]byte {
	s.setBlock(key)
	s.pad(&innerPad)
	s.hash(s.block[:], msg)
	s.pad(&outerPad)
	s.hash(s.block[:], s.sum[:])
	return &s.sum
}

// HKDF derives a key of 32 bytes (RFC 5869 with SHA-256). It uses Buf. The result
// is valid until the scratch is used again.
func (s *MACScratch) HKDF(secret, salt []byte, info string) *[sha256.Size]byte {
	extracted := s.SumWith(salt, secret)
	s.Buf = append(append(s.Buf[:0], info...), 1)
	return s.SumWith(extracted[:], s.Buf)
}

// setBlock sets block to the key as HMAC takes it, of one block.
func (s *MACScratch) setBlock(key []byte) {
	if len(key) > macBlock {
		s.hash(key, nil)
		key = s.sum[:]
	}
	clear(s.block[copy(s.block[:], key):])
}

func (s *MACScratch) pad(with *[macBlock]byte) { subtle.XORBytes(s.block[:], s.block[:], with[:]) }

// hash sets sum to the SHA-256 sum of a and b.
func (s *MACScratch) hash(a, b []byte) {
	s.h.Reset()
	s.h.Write(a)
	s.h.Write(b)
	s.h.Sum(s.sum[:0])
}

// appendState appends the state of the hash after the block.
func (s *MACScratch) appendState(b []byte) []byte {
	s.h.Reset()
	s.h.Write(s.block[:])
	b, err := s.state.AppendBinary(b)
	if err != nil { // documented never to happen for SHA-256
		panic("knockcore: SHA-256 state: " + err.Error())
	}
	return b
}

// Format says "[secret]": the states are as good as the key.
func (MAC) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON says "[secret]".
func (MAC) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// Sum returns HMAC(key, msg). The result is valid until the scratch is used
// again. msg may be s.Buf.
func (m *MAC) Sum(s *MACScratch, msg []byte) *[sha256.Size]byte {
	// The states come from MarshalBinary of the same hash: restoring them cannot
	// fail.
	_ = s.state.UnmarshalBinary(m.inner())
	s.h.Write(msg)
	s.h.Sum(s.sum[:0])
	_ = s.state.UnmarshalBinary(m.outer())
	s.h.Write(s.sum[:])
	s.h.Sum(s.sum[:0])
	return &s.sum
}

// begins reports whether HMAC(key, msg) begins with hint, of HintLen bytes, in
// constant time.
func (m *MAC) begins(s *MACScratch, msg, hint []byte) bool {
	return subtle.ConstantTimeCompare(m.Sum(s, msg)[:HintLen], hint) == 1
}
