// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// SaveGrant implements knockcore.Store. The error of a grant that could not be
// written is for information: the store knows it, and will write it when it can.
func (s *Store) SaveGrant(_ context.Context, g *knockcore.Grant) error {
	if g.Expires.IsZero() || len(g.Client) > maxName || len(g.Service) > maxName || len(g.Session) > maxName {
		return errors.New("a grant without end, or with a name or session of more than 255 bytes, can't be kept")
	}
	left := g.Expires.Sub(s.opts.Now())
	k := &keptGrant{grant: *g, end: s.clock.read().in(left), length: span(g.Expires.Sub(g.Made))}
	k.grant.Made, k.grant.Expires = time.Time{}, time.Time{}
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	s.grants[g.ID] = k
	return s.journal(func(b []byte) []byte { return appendGrant(b, k) })
}

// DeleteGrant implements knockcore.Store.
func (s *Store) DeleteGrant(_ context.Context, id knockcore.GrantID) error {
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	k := s.grants[id]
	if k == nil {
		return nil
	}
	delete(s.grants, id)
	err := s.journal(func(b []byte) []byte { return appendUngrant(b, id) })
	if err == nil || s.grantOver(k, s.clock.read()) {
		return nil
	}
	return s.markRevoked(err)
}

// Grants implements knockcore.Store. The times have the reading of the clock
// that Options.Now gives, so that setting the clock changes nothing any more.
func (s *Store) Grants(context.Context) ([]*knockcore.Grant, error) {
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	now, moment := s.opts.Now(), s.clock.read()
	var live []*knockcore.Grant
	for id, k := range s.grants {
		left := s.clock.left(k.end, s.clock.id, moment)
		if left <= 0 {
			delete(s.grants, id)
			continue
		}
		g := k.grant
		g.Expires = now.Add(left)
		g.Made = g.Expires.Add(-k.length)
		live = append(live, &g)
	}
	return live, nil
}

// SaveBan implements knockcore.Store; errors as in SaveGrant.
func (s *Store) SaveBan(_ context.Context, b knockcore.Ban) error {
	if !b.Prefix.IsValid() {
		return errors.New("a ban without prefix can't be kept")
	}
	left := b.Until.Sub(s.opts.Now())
	k := &keptBan{ban: b, end: s.clock.read().in(left), length: span(b.Until.Sub(b.Made))}
	k.ban.Made, k.ban.Until = time.Time{}, time.Time{}
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	s.bans[b.Prefix] = k
	return s.journal(func(b []byte) []byte { return appendBan(b, k) })
}

// DeleteBan implements knockcore.Store.
func (s *Store) DeleteBan(_ context.Context, prefix netip.Prefix) error {
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	if s.bans[prefix] == nil {
		return nil
	}
	delete(s.bans, prefix)
	return s.journal(func(b []byte) []byte { return appendUnban(b, prefix) })
}

// Bans implements knockcore.Store.
func (s *Store) Bans(context.Context) ([]knockcore.Ban, error) {
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	now, moment := s.opts.Now(), s.clock.read()
	var kept []knockcore.Ban
	for prefix, k := range s.bans {
		if s.banForgotten(k, moment) {
			delete(s.bans, prefix)
			continue
		}
		b := k.ban
		b.Until = now.Add(s.clock.left(k.end, s.clock.id, moment))
		b.Made = b.Until.Add(-k.length)
		kept = append(kept, b)
	}
	return kept, nil
}

func (s *Store) grantOver(k *keptGrant, now moment) bool {
	return s.clock.left(k.end, s.clock.id, now) <= 0
}

func (s *Store) banForgotten(k *keptBan, now moment) bool {
	return s.clock.left(k.end, s.clock.id, now) <= -k.length
}

// span is how long something lasts, as the format can say it.
func span(d time.Duration) time.Duration { return min(max(0, d), farAway) }

// journal writes a record.
func (s *Store) journal(encode func([]byte) []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.buf = encode(s.buf[:frameLen])
	return s.write()
}

// markRevoked notes that the deletion of a live grant could not be written: the
// next start forgets all grants rather than to bring this one back. The error
// says that not even that could be noted.
func (s *Store) markRevoked(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.horizon.flags&flagRevoked == 0 && !s.closed {
		s.horizon.flags |= flagRevoked
		s.writeHorizon()
	}
	if s.closed || s.hfile == nil && s.owned {
		return fmt.Errorf("a restart could bring the grant back: %w", cause)
	}
	return nil
}
