// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Store is a knockcore.Shared in a Redis or Valkey server. It is safe for
// concurrent use.
type Store struct {
	opts     Options
	settings atomic.Pointer[Settings]
	instance string // of this store's life; 8 hexadecimal digits
	guard    *knockcore.ReplayGuard
	opened   time.Time

	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	slots  chan struct{} // one for each request under way
	wake   chan struct{} // the keeper
	// compared is closed after the first comparison with the server.
	compared chan struct{}

	link     atomic.Pointer[link] // nil while the server can't be used
	clock    atomic.Pointer[serverClock]
	clockSet atomic.Bool // the server's clock and ours differed by more than they may
	keeperMu sync.Mutex  // guards client and next
	client   valkey.Client
	next     *link

	head  atomic.Uint64 // version of the server's last change, as of the last look
	last  atomic.Uint64 // of the last change that the follower took in
	delay atomic.Int64  // how old that change was, ns

	mu        sync.Mutex
	settled   sync.Cond // of mu: a change of this node ended
	items     map[string]*item
	tombs     map[string]tomb
	pending   map[string]int // changes of this node under way, by item
	dirty     map[string]bool
	unsent    []knockcore.Nonce // spent here while the server could not be used
	sink      knockcore.Sink
	retell    bool   // the sink wants to hear everything again
	interrupt func() // ends the follower's wait
	nodes     []Node
	up        bool // the server could be used at least once
	tried     chan struct{}
	linkErr   error
	syncErr   error
	toldDown  bool
	toldEpoch string
	swept     time.Time
}

// tomb says that an item was deleted.
type tomb struct {
	version uint64
	until   time.Time
}

// openWait is how long Open waits for the server before it goes on without.
const openWait = 2 * time.Second

// Open opens the store. A server that can't be reached is no error, because it may
// come; one that says no is.
func Open(opts Options) (*Store, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	var id [4]byte
	_, _ = rand.Read(id[:])
	s := &Store{
		opts: opts, instance: hex.EncodeToString(id[:]), guard: knockcore.NewReplayGuard(opts.Capacity), opened: time.Now(),
		slots: make(chan struct{}, inFlight), wake: make(chan struct{}, 1), tried: make(chan struct{}), compared: make(chan struct{}),
		items: make(map[string]*item), tombs: make(map[string]tomb), pending: make(map[string]int), dirty: make(map[string]bool),
	}
	s.settled.L = &s.mu
	s.settings.Store(&opts.Settings)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for deadline := s.opened.Add(openWait); ; {
		err := s.verify()
		if errors.As(err, new(configError)) {
			_ = s.Close()
			return nil, fmt.Errorf("server %s: %w", strings.Join(opts.Addresses, ", "), err)
		}
		if err == nil || time.Now().After(deadline) {
			break
		}
		time.Sleep(leastPause)
	}
	s.done.Add(2)
	go s.keep()
	go s.follow()
	if s.link.Load() != nil {
		// Much is known at once then: what looks like a frame of before, for one.
		select {
		case <-s.compared:
		case <-time.After(openWait):
		}
	}
	return s, nil
}

// Configure changes settings.
func (s *Store) Configure(settings Settings) {
	settings.complete()
	s.settings.Store(&settings)
}

var errDown = errors.New("the server can't be used")

func cmpErr(err, instead error) error {
	if err != nil {
		return err
	}
	return instead
}

// Admits implements knockcore.Shared.
func (s *Store) Admits() error {
	if s.link.Load() != nil || s.settings.Load().Local {
		return nil
	}
	return fmt.Errorf("%w: %w", knockcore.ReasonStoreError, errDown)
}

// Health says what is wrong, nil if nothing is.
func (s *Store) Health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.linkErr != nil {
		errs = append(errs, fmt.Errorf("%s: %w; %s", strings.Join(s.opts.Addresses, ", "), s.linkErr, s.policy()))
	}
	if s.syncErr != nil {
		errs = append(errs, fmt.Errorf("taking in what other nodes did: %w", s.syncErr))
	}
	return errors.Join(errs...)
}

// Grants implements knockcore.Store.
func (s *Store) Grants(ctx context.Context) ([]*knockcore.Grant, error) {
	var grants []*knockcore.Grant
	err := s.each(ctx, func(_ string, i *item) {
		if i.grant != nil {
			grants = append(grants, i.grant)
		}
	})
	return grants, err
}

// Bans implements knockcore.Store.
func (s *Store) Bans(ctx context.Context) ([]knockcore.Ban, error) {
	var bans []knockcore.Ban
	err := s.each(ctx, func(_ string, i *item) {
		if i.ban != nil {
			bans = append(bans, *i.ban)
		}
	})
	return bans, err
}

// each reads what the server keeps and is not over.
func (s *Store) each(ctx context.Context, f func(name string, i *item)) error {
	l := s.link.Load()
	if l == nil {
		return errDown
	}
	items, err := s.scan(ctx, l)
	now := time.Now()
	for name, i := range items {
		if i.over().After(now) {
			f(name, i)
		}
	}
	return err
}

// Close implements knockcore.Store.
func (s *Store) Close() error {
	s.cancel()
	s.done.Wait()
	s.keeperMu.Lock()
	defer s.keeperMu.Unlock()
	s.link.Store(nil)
	if s.client != nil {
		s.client.Close()
		s.client = nil
	}
	return nil
}

var _ knockcore.Shared = (*Store)(nil)
