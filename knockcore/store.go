// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"net/netip"
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
	// than what it remembers), ReasonFuture (a store may refuse timestamps after
	// now+window, which no caller should let through) and ReasonStoreError. Nonces
	// older than window may be forgotten.
	Spend(ctx context.Context, n Nonce, now time.Time, window time.Duration) error

	// Seen reports, without waiting for anything, whether the frame was accepted
	// before, as far as this store knows.
	Seen(key ReplayKey) bool

	// SaveGrant keeps a grant, in place of one with the same ID. The grant must
	// not change afterwards.
	SaveGrant(ctx context.Context, g *Grant) error

	// DeleteGrant forgets a grant; an unknown ID is not an error.
	DeleteGrant(ctx context.Context, id GrantID) error

	// Grants returns the grants that were kept and are not over, in no order.
	Grants(ctx context.Context) ([]*Grant, error)

	// SaveBan keeps a ban, in place of one of the same prefix.
	SaveBan(ctx context.Context, b Ban) error

	// DeleteBan forgets a ban; an unknown prefix is not an error.
	DeleteBan(ctx context.Context, prefix netip.Prefix) error

	// Bans returns the bans that were kept and are not forgotten (Ban.Forgotten),
	// in no order: those that are over too, because the next one of the same
	// prefix lasts longer.
	Bans(ctx context.Context) ([]Ban, error)

	// Close releases what the store holds.
	Close() error
}

// MemoryStore is a Store that lives as long as the process: it survives reloads
// only. After a restart, a frame of the last time window could be accepted a
// second time.
type MemoryStore struct {
	Guard *ReplayGuard

	mu     sync.Mutex
	grants grantSet
	bans   map[netip.Prefix]Ban
}

// NewMemoryStore makes a store for capacity nonces (0: the default).
func NewMemoryStore(capacity int) *MemoryStore {
	return &MemoryStore{
		Guard:  NewReplayGuard(capacity),
		grants: newGrantSet(newHolders()),
		bans:   make(map[netip.Prefix]Ban),
	}
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
	m.grants.put(g)
	return nil
}

// DeleteGrant implements Store.
func (m *MemoryStore) DeleteGrant(_ context.Context, id GrantID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.grants.remove(id)
	return nil
}

// Grants implements Store.
func (m *MemoryStore) Grants(context.Context) ([]*Grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, over := range m.grants.list(func(g *Grant) bool { return !g.Expires.After(now) }) {
		m.grants.remove(over.ID)
	}
	return m.grants.list(nil), nil
}

// SaveBan implements Store.
func (m *MemoryStore) SaveBan(_ context.Context, b Ban) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bans[b.Prefix] = b
	return nil
}

// DeleteBan implements Store.
func (m *MemoryStore) DeleteBan(_ context.Context, prefix netip.Prefix) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.bans, prefix)
	return nil
}

// Bans implements Store.
func (m *MemoryStore) Bans(context.Context) ([]Ban, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var kept []Ban
	for prefix, b := range m.bans {
		if b.Forgotten(now) {
			delete(m.bans, prefix)
			continue
		}
		kept = append(kept, b)
	}
	return kept, nil
}

// Close implements Store.
func (m *MemoryStore) Close() error { return nil }

var _ Store = (*MemoryStore)(nil)
