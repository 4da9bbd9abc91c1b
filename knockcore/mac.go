// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"crypto/sha256"
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
type MAC struct{ inner, outer []byte }

const macBlock = 64

// NewMAC prepares HMAC-SHA256 under key.
func NewMAC(key []byte) MAC {
	var block [macBlock]byte
	if len(key) > macBlock {
		sum := sha256.Sum256(key)
		copy(block[:], sum[:])
	} else {
		copy(block[:], key)
	}
	state := func(pad byte) []byte {
		padded := block
		for i := range padded {
			padded[i] ^= pad
		}
		h := sha256.New()
		h.Write(padded[:])
		b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil { // documented never to happen for SHA-256
			panic("knockcore: SHA-256 state: " + err.Error())
		}
		return b
	}
	return MAC{inner: state(0x36), outer: state(0x5c)}
}

// MACScratch is the working memory of MAC computations: one per goroutine.
type MACScratch struct {
	h     hash.Hash
	state encoding.BinaryUnmarshaler
	// Buf is where callers put the message: its bytes escape to the heap
	// otherwise.
	Buf []byte
	sum [sha256.Size]byte
}

var macScratch = sync.Pool{New: func() any { return NewMACScratch() }}

// NewMACScratch makes a scratch with room for messages of usual size.
func NewMACScratch() *MACScratch {
	h := sha256.New()
	return &MACScratch{h: h, state: h.(encoding.BinaryUnmarshaler), Buf: make([]byte, 0, 256)}
}

// GetMACScratch takes a scratch from a pool; give it back with Free.
func GetMACScratch() *MACScratch { return macScratch.Get().(*MACScratch) }

// Free returns the scratch to the pool. It must not be used afterwards.
func (s *MACScratch) Free() {
	s.Buf = s.Buf[:0]
	macScratch.Put(s)
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
	_ = s.state.UnmarshalBinary(m.inner)
	s.h.Write(msg)
	s.h.Sum(s.sum[:0])
	_ = s.state.UnmarshalBinary(m.outer)
	s.h.Write(s.sum[:])
	s.h.Sum(s.sum[:0])
	return &s.sum
}
