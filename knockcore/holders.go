// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"sync"
	"sync/atomic"
)

// holder is who holds a grant, and for what.
type holder struct{ service, client string }

// holders gives a number to every holder that there was, so that what is kept of a
// grant is short. Their names come from configuration, never from the wire: that
// bounds them. Reading takes no lock.
type holders struct {
	mu      sync.Mutex
	numbers map[holder]uint32
	all     atomic.Pointer[[]holder] // by their numbers; 0 is nobody's
}

func newHolders() *holders {
	h := &holders{numbers: make(map[holder]uint32)}
	h.all.Store(&[]holder{{}})
	return h
}

// number returns the number of a holder, a new one if it has none.
func (h *holders) number(of holder) uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, ok := h.numbers[of]
	if !ok {
		all := append(*h.all.Load(), of) // behind what those can see who read meanwhile
		n = uint32(len(all) - 1)
		h.numbers[of] = n
		h.all.Store(&all)
	}
	return n
}

// of returns the holder with a number.
func (h *holders) of(number uint32) *holder { return &(*h.all.Load())[number] }
