// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Store is a knockcore.Store in a directory. It is safe for concurrent use.
type Store struct {
	opts  Options
	clock clock
	guard *knockcore.ReplayGuard
	root  *os.Root
	lock  *os.File

	// keptMu guards what is kept besides nonces. Records about it are written
	// while it is held, so that the journal has them in the order of the changes.
	keptMu sync.Mutex
	grants map[knockcore.GrantID]*keptGrant
	bans   map[netip.Prefix]*keptBan

	// mu guards the files; it comes after keptMu.
	mu      sync.Mutex
	closed  bool
	seg     *segment   // where records go; nil if they can't be written
	spare   *segment   // the next one, made ahead of need
	full    []*segment // were filled or given up; the keeper syncs and closes them
	nextGen uint64
	lastGen uint64  // of the last segment written to
	begun   uint64  // the generation whose snapshot is not written yet
	buf     []byte  // of the record being written
	horizon horizon // as the file says, or should
	hfile   *os.File
	// broken says that the files lack something; owned, that there is a horizon
	// file that must not be believed and could not be removed yet.
	broken, owned bool
	unsyncedNames bool
	faults        uint64 // counts write errors
	journalErr    error
	horizonErr    error
	snapshotErr   error
	journalBytes  int64 // in segments that were filled since the snapshot
	begunBytes    int64 // of these, what that snapshot will hold
	snapshotBytes int64
	snapshots     uint64
	snapshotTook  time.Duration
	tried         chan struct{} // closed after each try to make the horizon durable

	// refuses is until when all frames are refused, because spent nonces may be
	// lost, Unix ms; 0 if they are not.
	refuses int64
	// firstFloor is the floor of a first start, Unix ms; it counts for a while
	// after opened.
	firstFloor int64
	opened     time.Time

	ceiling atomic.Int64 // the horizon on disk, durably; Unix ms
	newest  atomic.Int64 // the greatest timestamp spent; Unix ms
	waits   atomic.Uint64
	busy    atomic.Bool // something was written since the last sync
	hung    atomic.Bool // a spend ran out of patience with the disk

	toldIll, toldDue bool // the janitor's: what was logged

	wake, urgent, work chan struct{} // to the keeper, twice, and the janitor
	logs               chan logLine
	quit               chan struct{}
	done               sync.WaitGroup
	closing            sync.Once
	closeErr           error
}

var errClosed = errors.New("the store is closed")

// Spend implements knockcore.Store. When it returns nil, the nonce is in the
// kernel's hands, safe from an end of this process, and covered by a durable
// horizon, safe from a power loss. See the package comment for what happens when
// the disk refuses or does not answer.
func (s *Store) Spend(ctx context.Context, n knockcore.Nonce, now time.Time, window time.Duration) error {
	at := n.Time.UnixMilli()
	switch {
	case len(n.Client) > maxName:
		return fmt.Errorf("%w: client's name has %d bytes", knockcore.ReasonStoreError, len(n.Client))
	case at > now.UnixMilli()+window.Milliseconds() || at > maxMillis/2:
		// It would raise the horizon, and lock everybody out for as long after a
		// power loss.
		return knockcore.ReasonFuture
	case at < -maxMillis/2 || at <= s.firstFloor && time.Since(s.opened) <= 2*s.opts.Window:
		return knockcore.ReasonStale
	}
	if err := s.guard.Spend(n, now, window); err != nil {
		return err
	}
	if err := s.journalSpend(n); err != nil {
		return err
	}
	return s.cover(ctx, at)
}

// journalSpend writes the nonce. That it can't be written is no error: the next
// start knows that something is missing.
func (s *Store) journalSpend(n knockcore.Nonce) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("%w: %w", knockcore.ReasonStoreError, errClosed)
	}
	s.buf = appendSpend(s.buf[:frameLen], n)
	_ = s.write()
	return nil
}

// Seen implements knockcore.Store.
func (s *Store) Seen(key knockcore.ReplayKey) bool { return s.guard.Seen(key) }

// Nonces is the number of nonces remembered.
func (s *Store) Nonces() int { return s.guard.Len() }

// Refuses is until when all frames are refused, because spent nonces may have been
// lost; the zero Time if none are for that reason.
func (s *Store) Refuses() time.Time {
	if until := time.UnixMilli(s.refuses); s.refuses != 0 && s.opts.Now().Before(until) {
		return until
	}
	return time.Time{}
}

// Health says what is wrong, nil if nothing is: then everything that the store
// accepted is in its files.
func (s *Store) Health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{s.journalErr, s.horizonErr, s.snapshotErr}
	if s.owned && s.hfile == nil {
		errs = append(errs, errors.New("the horizon file is out of date and can't be removed: after a restart within the time window, frames could be accepted again"))
	}
	if s.hung.Load() {
		errs = append(errs, fmt.Errorf("the disk has not confirmed a write for %v", patience))
	}
	if s.closed {
		errs = append(errs, errClosed)
	}
	return errors.Join(errs...)
}

// Stats are figures of a store.
type Stats struct {
	// Nonces, Grants and Bans are how many are kept, over ones included.
	Nonces, Grants, Bans int
	// Floor is the timestamp up to which all frames are refused, zero if there is
	// none.
	Floor time.Time
	// Horizon is the timestamp up to which frames are refused after a power loss.
	Horizon time.Time
	// JournalBytes is how much was written since the last snapshot.
	JournalBytes int64
	// Snapshots is how many were written by this process; SnapshotBytes and
	// SnapshotTook are of the last one.
	Snapshots     uint64
	SnapshotBytes int64
	SnapshotTook  time.Duration
	// WriteErrors is how often something could not be written.
	WriteErrors uint64
	// Waits is how many spends waited for the disk: those after a pause.
	Waits uint64
}

// Stats returns figures.
func (s *Store) Stats() Stats {
	st := Stats{Nonces: s.guard.Len(), Floor: s.guard.Floor(), Waits: s.waits.Load(), Horizon: time.UnixMilli(s.ceiling.Load())}
	s.keptMu.Lock()
	st.Grants, st.Bans = len(s.grants), len(s.bans)
	s.keptMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st.JournalBytes = s.journalBytes
	if s.seg != nil {
		st.JournalBytes += s.seg.end - headerLen
	}
	st.Snapshots, st.SnapshotBytes, st.SnapshotTook = s.snapshots, s.snapshotBytes, s.snapshotTook
	st.WriteErrors = s.faults
	return st
}

var _ knockcore.Store = (*Store)(nil)
