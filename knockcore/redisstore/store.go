// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
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

// maxUnsent bounds the nonces that are kept for the server while it can't be used.
const maxUnsent = 1 << 16

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

var errDown = errors.New("the server can't be used")

func cmpErr(err, instead error) error {
	if err != nil {
		return err
	}
	return instead
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
