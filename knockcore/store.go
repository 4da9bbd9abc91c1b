// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"sync"
	"time"
)

// Store keeps what must outlive a configuration and, if it can, the process:
// spent nonces, grants and bans. Calls come from many goroutines.
//
// A Store fails closed: Spend returns an error whenever it is not sure that the
// nonce is fresh.
type Store interface {
	// Spend makes a nonce spent. Of all calls for a key exactly one returns nil;
	// the others return ReasonReplay. It returns only when the nonce is as safe
	// as this store makes it. Other reasons: ReasonReplayFull, ReasonStale (the
	// store can't know whether the frame was accepted before, because it is older
	// than what it remembers) and ReasonStoreError. Nonces older than window may
	// be forgotten.
	Spend(ctx context.Context, n Nonce, now time.Time, window time.Duration) error

	// Seen reports, without waiting for anything, whether the frame was accepted
	// before, as far as this store knows.
	Seen(key ReplayKey) bool

	// SaveGrant keeps a grant, in place of one with the same ID.
	SaveGrant(ctx context.Context, g *Grant) error

	// DeleteGrant forgets a grant; an unknown ID is not an error.
	DeleteGrant(ctx context.Context, id GrantID) error

	// Grants returns the grants that were kept and are not over.
	Grants(ctx context.Context) ([]*Grant, error)

	// Close releases what the store holds.
	Close() error
}

// MemoryStore is a Store that lives as long as the process: it survives reloads
// only. After a restart, a frame of the last time window could be accepted a
// second time.
type MemoryStore struct {
	Guard *ReplayGuard

	mu     sync.Mutex
	grants map[GrantID]*Grant
}

// NewMemoryStore makes a store for capacity nonces (0: the default).
func NewMemoryStore(capacity int) *MemoryStore {
	return &MemoryStore{Guard: NewReplayGuard(capacity), grants: make(map[GrantID]*Grant)}
}

// Spend implements Store.
func (m *MemoryStore) Spend(_ context.Context, n Nonce, now time.Time, window time.Duration) error {
	return m.Guard.Spend(n, now, window)
}

// Seen implements Store.
func (m *MemoryStore) Seen(key ReplayKey) bool { return m.Guard.Seen(key) }

// Nonces is the number of nonces remembered.
func (m *MemoryStore) Nonces() int { return m.Guard.Len() }

// SaveGrant implements Store.
func (m *MemoryStore) SaveGrant(_ context.Context, g *Grant) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.grants[g.ID] = g
	return nil
}

// DeleteGrant implements Store.
func (m *MemoryStore) DeleteGrant(_ context.Context, id GrantID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.grants, id)
	return nil
}

// Grants implements Store.
func (m *MemoryStore) Grants(context.Context) ([]*Grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var live []*Grant
	for _, g := range m.grants {
		if g.Expires.After(now) {
			live = append(live, g)
		}
	}
	return live, nil
}

// Close implements Store.
func (m *MemoryStore) Close() error { return nil }

var _ Store = (*MemoryStore)(nil)
