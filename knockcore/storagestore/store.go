// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package storagestore keeps grants and bans in a storage that may be shared, such
// as Caddy's: a folder, a bucket, a key-value server. Such a storage can list, read,
// write and delete, but it can neither let exactly one of several writers win nor
// tell of changes. So spent nonces, and with them sessions, are left to another
// store, and nodes that share a storage look at its listing now and then.
package storagestore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Storage is what is needed of a storage; certmagic.Storage has it. What is not
// there gives fs.ErrNotExist. All methods are safe for concurrent use.
type Storage interface {
	Store(ctx context.Context, key string, value []byte) error
	Load(ctx context.Context, key string) ([]byte, error)
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, path string, recursive bool) ([]string, error)
}

// Options are what a store goes by.
type Options struct {
	// Storage keeps grants of address scope and bans.
	Storage Storage
	// Local keeps everything else: spent nonces, and grants of session scope, which
	// are for this node only unless Local is a knockcore.Shared itself.
	Local knockcore.Store
	// Node is this node's name, for people.
	Node string
	// Log is told what an operator should know; level is "info" or "warn". Nil means
	// nobody is told.
	Log func(level, msg string, err error)
	// Observe is told of each request: sync (a look at the listing), load, save,
	// delete, order; how long it took, and how it failed. Nil means nobody is told.
	Observe func(op string, took time.Duration, err error)
}

// Store keeps grants and bans in a storage of one node. It is safe for concurrent
// use.
type Store struct {
	opts    Options
	local   knockcore.Store
	storage atomic.Value  // of holder
	slots   chan struct{} // one for each request under way

	looking sync.Mutex // held during a look

	mu      sync.Mutex
	entries map[string]*entry   // by key
	names   map[string][]*entry // by name: what was written at the same time by several
	// doomed are keys that no longer count, and what has to be kept before they may be
	// deleted, if anything.
	doomed  map[string]*entry
	writing map[string]int   // keys that are being written; a storage may take its time
	bad     map[string]error // keys that could not be read, and why
	marks   map[string]bool
	ordered map[string]bool // orders that were carried out, or given
	removed map[string]bool // names that the sink was told to remove during this look
	again   map[string]bool // names that the sink has to be told once more
	sink    knockcore.Sink
	nodes   []Node
	beat    string // this node's key
	beaten  time.Time
	twin    bool // another node has the name of this one
	unread  int
	looked  time.Time // the last look that succeeded
	lookErr error
	saveErr error // the last that was not mended
}

type holder struct{ Storage }

// Open makes a store for a node that shares the storage with nobody.
func Open(opts Options) *Store {
	if opts.Log == nil {
		opts.Log = func(string, string, error) {}
	}
	if opts.Observe == nil {
		opts.Observe = func(string, time.Duration, error) {}
	}
	s := &Store{
		opts: opts, local: opts.Local, slots: make(chan struct{}, 64),
		entries: make(map[string]*entry), names: make(map[string][]*entry), doomed: make(map[string]*entry),
		writing: make(map[string]int), bad: make(map[string]error),
		marks: make(map[string]bool), ordered: make(map[string]bool), removed: make(map[string]bool), again: make(map[string]bool),
	}
	s.Use(opts.Storage)
	return s
}

// Use takes another way to the same storage.
func (s *Store) Use(storage Storage) { s.storage.Store(holder{storage}) }

// Local is the store that keeps nonces and sessions.
func (s *Store) Local() knockcore.Store { return s.local }

// SaveGrant implements knockcore.Store.
func (s *Store) SaveGrant(ctx context.Context, g *knockcore.Grant) error {
	if g.Scope != knockcore.ScopeAddress {
		return s.local.SaveGrant(ctx, g)
	}
	return s.save(ctx, &entry{name: grantName(g.ID), grant: g})
}

// SaveBan implements knockcore.Store.
func (s *Store) SaveBan(ctx context.Context, b knockcore.Ban) error {
	return s.save(ctx, &entry{name: banName(b.Prefix), ban: &b})
}

// DeleteGrant implements knockcore.Store.
func (s *Store) DeleteGrant(ctx context.Context, id knockcore.GrantID) error {
	name := grantName(id)
	s.mu.Lock()
	known := len(s.names[name]) > 0
	s.mu.Unlock()
	if !known {
		return s.local.DeleteGrant(ctx, id)
	}
	return s.drop(ctx, name)
}

// DeleteBan implements knockcore.Store.
func (s *Store) DeleteBan(ctx context.Context, prefix netip.Prefix) error {
	return s.drop(ctx, banName(prefix))
}

// Grants implements knockcore.Store. Those of session scope are with them.
func (s *Store) Grants(ctx context.Context) ([]*knockcore.Grant, error) {
	list, err := s.sessions(ctx)
	if err != nil {
		return nil, err
	}
	kept, err := s.all(ctx)
	for _, e := range kept {
		if e.grant != nil {
			list = append(list, e.grant)
		}
	}
	return list, err
}

// sessions are the grants that the local store keeps.
func (s *Store) sessions(ctx context.Context) ([]*knockcore.Grant, error) {
	list, err := s.local.Grants(ctx)
	return slices.DeleteFunc(list, func(g *knockcore.Grant) bool { return g.Scope == knockcore.ScopeAddress }), err
}

// Bans implements knockcore.Store.
func (s *Store) Bans(ctx context.Context) ([]knockcore.Ban, error) {
	var list []knockcore.Ban
	kept, err := s.all(ctx)
	for _, e := range kept {
		if e.ban != nil {
			list = append(list, *e.ban)
		}
	}
	return list, err
}

// all looks at the storage and returns what is kept and not over.
func (s *Store) all(ctx context.Context) (kept []*entry, err error) {
	err = s.look(ctx)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.names {
		if e := s.current(name); e.over().After(now) {
			kept = append(kept, e)
		}
	}
	return kept, err
}

// current is the entry of a name that counts, nil if there is none: of those that
// several nodes wrote at the same time the one that ends last, so that nobody is out
// before he was told. The caller holds mu.
func (s *Store) current(name string) (last *entry) {
	for _, e := range s.names[name] {
		if last == nil || e.over().After(last.over()) {
			last = e
		}
	}
	return last
}

// Spend implements knockcore.Store.
func (s *Store) Spend(ctx context.Context, n knockcore.Nonce, now time.Time, window time.Duration) error {
	return s.local.Spend(ctx, n, now, window)
}

// Seen implements knockcore.Store.
func (s *Store) Seen(key knockcore.ReplayKey) bool { return s.local.Seen(key) }

// Nonces is the number of nonces that are remembered.
func (s *Store) Nonces() int {
	if counter, ok := s.local.(interface{ Nonces() int }); ok {
		return counter.Nonces()
	}
	return 0
}

// Refuses is until when frames are refused because nonces may have been lost; zero
// if they are not.
func (s *Store) Refuses() time.Time {
	if careful, ok := s.local.(interface{ Refuses() time.Time }); ok {
		return careful.Refuses()
	}
	return time.Time{}
}

// Health says what is wrong, nil if nothing is.
func (s *Store) Health() error {
	var errs []error
	if checker, ok := s.local.(interface{ Health() error }); ok {
		errs = append(errs, checker.Health())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.lookErr != nil:
		errs = append(errs, fmt.Errorf("reading grants and bans in the storage: %w; nothing is revoked for that", s.lookErr))
	case s.saveErr != nil:
		errs = append(errs, fmt.Errorf("keeping grants and bans in the storage: %w", s.saveErr))
	}
	if s.twin {
		errs = append(errs, fmt.Errorf("another node that uses the storage is called %q, too: give each one a name by `node`", s.opts.Node))
	}
	if len(s.bad) > 0 {
		var keys []string
		for key, err := range s.bad {
			keys = append(keys, fmt.Sprintf("%s: %v", key, err))
		}
		slices.Sort(keys)
		errs = append(errs, fmt.Errorf("%d entries of the storage can't be used (%s)", len(keys), strings.Join(keys[:min(3, len(keys))], "; ")))
	}
	return errors.Join(errs...)
}

// Close releases what the store holds.
func (s *Store) Close() error { return s.local.Close() }

var _ knockcore.Store = (*Store)(nil)
