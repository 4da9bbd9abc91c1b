// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// SaveGrant implements knockcore.Store.
func (s *Store) SaveGrant(ctx context.Context, g *knockcore.Grant) error {
	return s.save(ctx, grantName(g.ID), &item{grant: g})
}

// SaveBan implements knockcore.Store.
func (s *Store) SaveBan(ctx context.Context, b knockcore.Ban) error {
	return s.save(ctx, banName(b.Prefix), &item{ban: &b})
}

func (s *Store) save(ctx context.Context, name string, i *item) error {
	ttl := time.Until(i.over()).Milliseconds()
	if ttl <= 0 {
		return s.delete(ctx, name)
	}
	i.instance = s.instance
	payload, err := i.payload(s.toServer)
	if err != nil {
		return err
	}
	start := time.Now()
	s.begin(name)
	answer, err := s.retry(ctx, name, "s", strconv.FormatInt(ttl, 10), name, payload)
	if err == nil {
		i.version, err = parseVersion(answer)
	}
	s.opts.Observe("save", time.Since(start), err)
	s.end(name, func() {
		if err != nil {
			s.dirty[name] = true
			if old := s.items[name]; old != nil {
				i.version = old.version
			}
		} else {
			delete(s.dirty, name)
			delete(s.tombs, name)
		}
		s.items[name] = i
	})
	return err
}

// DeleteGrant implements knockcore.Store.
func (s *Store) DeleteGrant(ctx context.Context, id knockcore.GrantID) error {
	return s.delete(ctx, grantName(id))
}

// DeleteBan implements knockcore.Store.
func (s *Store) DeleteBan(ctx context.Context, prefix netip.Prefix) error {
	return s.delete(ctx, banName(prefix))
}

// leastTomb is how long a deletion is remembered at least.
const leastTomb = time.Minute

func (s *Store) delete(ctx context.Context, name string) error {
	start := time.Now()
	s.mu.Lock()
	until := start.Add(leastTomb)
	if i := s.items[name]; i != nil && i.over().After(until) {
		until = i.over()
	}
	s.mu.Unlock()
	s.begin(name)
	answer, err := s.retry(ctx, name, "d", strconv.FormatInt(time.Until(until).Milliseconds(), 10), name)
	var version uint64
	if err == nil {
		version, err = parseVersion(answer)
	}
	s.opts.Observe("delete", time.Since(start), err)
	s.end(name, func() {
		i := s.items[name]
		delete(s.items, name)
		if err != nil {
			if i == nil || i.version == 0 {
				delete(s.dirty, name) // nobody has heard of it
				return
			}
			version, s.dirty[name] = i.version, true
		} else {
			delete(s.dirty, name)
		}
		s.tombs[name] = tomb{version, until}
	})
	return err
}

// TakeUse implements knockcore.Shared.
func (s *Store) TakeUse(ctx context.Context, g *knockcore.Grant) (left int, err error) {
	start := time.Now()
	name := grantName(g.ID)
	s.begin(name)
	answer, err := s.retry(ctx, name, "t", name)
	s.opts.Observe("take", time.Since(start), err)
	var version uint64
	if err == nil && answer != "gone" {
		text, uses, _ := strings.Cut(answer, " ")
		if version, err = parseVersion(text); err == nil {
			left, err = strconv.Atoi(uses)
		}
	}
	local := err != nil && s.settings.Load().Local
	s.end(name, func() {
		switch i := s.items[name]; {
		case local:
			version := uint64(0)
			if i != nil {
				version = i.version
			}
			s.items[name], s.dirty[name] = &item{grant: g, version: version, instance: s.instance}, true
		case err == nil && answer != "gone":
			taken := g
			if g.Uses != left {
				other := *g
				other.Uses = left
				taken = &other
			}
			s.items[name] = &item{grant: taken, version: version, instance: s.instance}
		}
	})
	switch {
	case local:
		return g.Uses, nil
	case err != nil:
		return 0, fmt.Errorf("%w: %w", knockcore.ReasonStoreError, err)
	case answer == "gone":
		return 0, knockcore.ReasonNoSession
	}
	return left, nil
}

// Order implements knockcore.Shared.
func (s *Store) Order(ctx context.Context, sel knockcore.Selection) error {
	payload, err := json.Marshal(sel)
	if err != nil {
		return err
	}
	start := time.Now()
	_, err = s.retry(ctx, "-", "r", "-", string(payload))
	s.opts.Observe("order", time.Since(start), err)
	return err
}

// retry makes a change, again where the server turns out to be another one.
func (s *Store) retry(ctx context.Context, name string, kind string, args ...string) (answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.settings.Load().Timeout)
	defer cancel()
	l := s.link.Load()
	for range 3 {
		if l == nil {
			return "", cmpErr(err, errDown)
		}
		if answer, err = s.change(ctx, l, "i", name, kind, args...); err == nil {
			return answer, nil
		}
		if !errors.Is(err, errLost) {
			s.lost(l)
			return "", err
		}
		l = s.await(ctx, l)
	}
	return "", err
}

// begin says that a change of an item is under way: until it ends, the follower
// does not judge what others did to it.
func (s *Store) begin(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending[name]++
}

// end ends a change; result notes what came of it.
func (s *Store) end(name string, result func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	result()
	if s.pending[name]--; s.pending[name] == 0 {
		delete(s.pending, name)
	}
	s.settled.Broadcast()
}
