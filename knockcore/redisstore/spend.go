// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// maxUnsent bounds the nonces that are kept for the server while it can't be used.
const maxUnsent = 1 << 16

// Spend implements knockcore.Store.
func (s *Store) Spend(ctx context.Context, n knockcore.Nonce, now time.Time, window time.Duration) (err error) {
	at := n.Time.UnixMilli()
	switch {
	case len(n.Client) > maxName:
		return fmt.Errorf("%w: client's name has %d bytes", knockcore.ReasonStoreError, len(n.Client))
	case at > now.UnixMilli()+window.Milliseconds():
		return knockcore.ReasonFuture
	}
	ttl := s.ttl(at, window, now.UnixMilli())
	if ttl <= 0 {
		return knockcore.ReasonStale
	}
	if err := s.guard.Spend(n, now, window); err != nil {
		return err
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.settings.Load().Timeout)
	defer cancel()
	l := s.link.Load()
	for range 3 {
		if l == nil {
			break
		}
		if at <= l.base+2*window.Milliseconds() {
			return &knockcore.Refusal{Reason: knockcore.ReasonStale, Client: n.Client, Detail: "it may have been accepted before the server was started or replaced"}
		}
		var answer string
		name, payload := nonceEntry(n)
		answer, err = s.change(ctx, l, "n", name, "n", strconv.FormatInt(ttl, 10), name, payload)
		if err == nil && answer == "seen" {
			return knockcore.ReasonReplay
		}
		if err == nil {
			s.opts.Observe("spend", time.Since(start), nil)
			return nil
		}
		if !errors.Is(err, errLost) {
			s.lost(l)
			break
		}
		l = s.await(ctx, l)
	}
	s.opts.Observe("spend", time.Since(start), cmpErr(err, errDown))
	return s.without(n, window, err)
}

// ttl is how long the nonce of a frame with this timestamp must be kept, in ms:
// until no node could accept it any more, if its clock differs from ours by a
// window, and the server's by another one.
func (s *Store) ttl(at int64, window time.Duration, now int64) int64 {
	return at + 3*max(window, s.opts.Window).Milliseconds() - now
}

// without decides on a nonce without the server.
func (s *Store) without(n knockcore.Nonce, window time.Duration, err error) error {
	if !s.settings.Load().Local {
		return fmt.Errorf("%w: %w", knockcore.ReasonStoreError, cmpErr(err, errDown))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up && n.Time.UnixMilli() <= s.opened.UnixMilli()+window.Milliseconds() {
		// A former life of this node may have accepted it.
		return &knockcore.Refusal{Reason: knockcore.ReasonStale, Client: n.Client, Detail: "it may have been accepted before this node was started"}
	}
	if len(s.unsent) < maxUnsent {
		s.unsent = append(s.unsent, n)
	}
	return nil
}

// Seen implements knockcore.Store. It knows the nonces of other nodes, too, once
// they were told.
func (s *Store) Seen(key knockcore.ReplayKey) bool { return s.guard.Seen(key) }

// Nonces is the number of nonces that this node remembers.
func (s *Store) Nonces() int { return s.guard.Len() }
