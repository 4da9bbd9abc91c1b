// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package storagestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Shared is a Store of which several nodes follow each other. It is a
// knockcore.Shared of grants of address scope and of bans; nonces and sessions are
// as shared as its local store is.
type Shared struct {
	*Store
	poll     atomic.Int64 // time.Duration
	cancel   context.CancelFunc
	ctx      context.Context
	wake     chan struct{}
	done     chan struct{}
	restored bool // sessions of before were told
}

const (
	openWait  = 2 * time.Second // for the first look
	closeWait = 2 * time.Second // for a look under way
)

// OpenShared makes a store that looks every poll at what the other nodes did. A
// storage that does not answer is no error, because it may come.
func OpenShared(opts Options, poll time.Duration) *Shared {
	s := &Shared{Store: Open(opts), wake: make(chan struct{}, 1), done: make(chan struct{})}
	s.Every(poll)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	looked := make(chan struct{})
	go s.follow(looked)
	select {
	case <-looked:
	case <-time.After(openWait):
	}
	return s
}

// Every changes how often to look.
func (s *Shared) Every(poll time.Duration) { s.poll.Store(int64(poll)) }

// follow looks until the store is closed. looked is closed after the first look.
func (s *Shared) follow(looked chan struct{}) {
	defer close(s.done)
	for failing := false; ; {
		err := s.look(s.ctx)
		if err == nil {
			err = s.greet(s.ctx)
		}
		if looked != nil {
			close(looked)
			looked = nil
		}
		if failed := err != nil; failed != failing && s.ctx.Err() == nil {
			if failing = failed; failed {
				s.opts.Log("warn", "the storage can't be followed; what other nodes do is not known until it can, and nothing is revoked for that", err)
			} else {
				s.opts.Log("info", "the storage can be followed again", nil)
			}
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(time.Duration(s.poll.Load())):
		case <-s.wake:
			s.tellAll()
		}
	}
}

// Follow implements knockcore.Shared.
func (s *Shared) Follow(sink knockcore.Sink) {
	s.mu.Lock()
	if s.sink == nil {
		s.sink = sink
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	if shared, ok := s.local.(knockcore.Shared); ok {
		shared.Follow(sink)
	}
}

// tellAll tells the sink all there is.
func (s *Shared) tellAll() {
	s.mu.Lock()
	names := slices.Collect(maps.Keys(s.names))
	sink := s.sink
	s.mu.Unlock()
	for _, name := range names {
		s.tell(name)
	}
	if _, ok := s.local.(knockcore.Shared); ok || sink == nil || s.restored {
		return // that tells of its own
	}
	s.restored = true
	list, err := s.sessions(s.ctx)
	if err != nil {
		s.opts.Log("warn", "sessions of before can't be read", err)
	}
	for _, g := range list {
		sink.Enter(g, s.opts.Node)
	}
}

// Admits implements knockcore.Shared. That the storage is away keeps nobody out:
// whether a frame is fresh is for the local store to say.
func (s *Shared) Admits() error {
	if shared, ok := s.local.(knockcore.Shared); ok {
		return shared.Admits()
	}
	return nil
}

// TakeUse implements knockcore.Shared.
func (s *Shared) TakeUse(ctx context.Context, g *knockcore.Grant) (left int, err error) {
	if shared, ok := s.local.(knockcore.Shared); ok {
		return shared.TakeUse(ctx, g)
	}
	// A store that can't keep it reports its own health.
	_ = s.local.SaveGrant(ctx, g)
	return g.Uses, nil
}

// Order implements knockcore.Shared. Nodes that can't be told within an hour do not
// hear of it.
func (s *Shared) Order(ctx context.Context, sel knockcore.Selection) error {
	b, err := json.Marshal(value{Node: s.opts.Node, Order: &sel})
	if err != nil {
		return err
	}
	stamp := newStamp(time.Now())
	key := path.Join(root, orders, stamp[12:]+"."+stamp)
	s.mu.Lock()
	gone := errors.Is(s.lookErr, errGone)
	s.ordered[key] = true
	s.mu.Unlock()
	if gone {
		return errGone
	}
	return s.do(ctx, "order", func(ctx context.Context, storage Storage) error { return storage.Store(ctx, key, b) })
}

// Stats are figures of a store.
type Stats struct {
	// Up says whether the last look at the storage succeeded.
	Up bool
	// Age is how long ago one did, Poll how often it is tried.
	Age, Poll time.Duration
	// Items is how many grants and bans this node knows, Unread how many it has not
	// read yet, Unsent how many changes the storage has not been told of.
	Items, Unread, Unsent int
	Nodes                 []Node
}

// Stats returns figures.
func (s *Shared) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Up: s.lookErr == nil && !s.looked.IsZero(), Poll: time.Duration(s.poll.Load()),
		Items: len(s.names), Unread: s.unread, Nodes: slices.Clone(s.nodes),
	}
	if !s.looked.IsZero() {
		st.Age = time.Since(s.looked)
	}
	for _, e := range s.entries {
		if !e.kept {
			st.Unsent++
		}
	}
	return st
}

// Health says what is wrong, nil if nothing is.
func (s *Shared) Health() error {
	s.mu.Lock()
	silent := time.Since(s.looked)
	hangs := s.lookErr == nil && !s.looked.IsZero() && silent > 3*time.Duration(s.poll.Load())+listLimit
	s.mu.Unlock()
	if hangs {
		return errors.Join(s.Store.Health(), fmt.Errorf("the storage has not answered for %s; nothing is revoked for that", silent.Round(time.Second)))
	}
	return s.Store.Health()
}

// Close implements knockcore.Store.
func (s *Shared) Close() error {
	s.cancel()
	select {
	case <-s.done:
	case <-time.After(closeWait): // a storage that hangs
	}
	return s.Store.Close()
}

var _ knockcore.Shared = (*Shared)(nil)
