// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// cover returns when the durable horizon is at or after a timestamp, which it
// nearly always is. The disk may refuse, or take longer than patience: then the
// owner gets in nevertheless, and Health says so.
func (s *Store) cover(ctx context.Context, at int64) error {
	raise(&s.newest, at)
	if at <= s.ceiling.Load() {
		return nil
	}
	s.waits.Add(1)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		tried, waiting := s.askFor(at)
		if !waiting {
			return nil
		}
		select {
		case <-tried:
		case <-timer.C:
			s.hung.Store(true)
			s.log("warn", fmt.Sprintf("the disk has not confirmed a write for %v; knocks go on without", patience), nil)
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%w: waiting for the disk: %w", knockcore.ReasonStoreError, context.Cause(ctx))
		case <-s.quit:
			return fmt.Errorf("%w: %w", knockcore.ReasonStoreError, errClosed)
		}
	}
}

// askFor raises the horizon in the file, so that it is true if this process is
// killed, and asks the keeper to make it durable. tried is closed after the
// next try; waiting says whether there is something to wait for.
func (s *Store) askFor(at int64) (tried <-chan struct{}, waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at > s.horizon.ceiling {
		s.horizon.ceiling = at + lead
		s.writeHorizon()
	}
	if at <= s.ceiling.Load() || s.hfile == nil || s.hung.Load() {
		return nil, false
	}
	notify(s.urgent)
	return s.tried, true
}

// raise makes v at least x.
func raise(v *atomic.Int64, x int64) {
	for old := v.Load(); x > old && !v.CompareAndSwap(old, x); old = v.Load() {
	}
}

// keeper makes durable what was written: the horizon when somebody waits for
// it, everything else every syncEvery while there is something. It does nothing
// while nothing is written.
func (s *Store) keeper() {
	defer s.done.Done()
	var tick <-chan time.Time
	for {
		select {
		case <-s.quit:
			return
		case <-s.urgent:
			s.syncHorizon()
		case <-s.wake:
		case <-tick:
			tick = nil
			s.busy.Store(false) // whoever writes from now on wakes again
			s.lookAhead()
			s.syncJournal()
		}
		if tick == nil && s.busy.Load() {
			tick = time.After(syncEvery)
		}
	}
}

// lookAhead raises the horizon before somebody has to wait for it.
func (s *Store) lookAhead() {
	s.mu.Lock()
	ahead := s.newest.Load() + lead
	low := ahead > s.horizon.ceiling+lead/2 && s.hfile != nil
	if low {
		s.horizon.ceiling = ahead
		s.writeHorizon()
	}
	s.mu.Unlock()
	if low {
		s.syncHorizon()
	}
}

// syncHorizon makes the horizon in the file durable.
func (s *Store) syncHorizon() {
	s.mu.Lock()
	f, ceiling := s.hfile, s.horizon.ceiling
	s.mu.Unlock()
	var err error
	if f != nil {
		err = s.datasync(f)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f != nil && f == s.hfile { // else it was lost or replaced meanwhile
		if err != nil {
			s.loseHorizon(err)
		} else {
			raise(&s.ceiling, ceiling)
		}
	}
	s.hung.Store(false)
	close(s.tried)
	s.tried = make(chan struct{})
}

// syncJournal makes the journal durable, closes the segments that are full and
// notes how far it is whole.
func (s *Store) syncJournal() {
	s.mu.Lock()
	full, seg, broken := s.full, s.seg, s.broken
	s.full = nil
	names := s.unsyncedNames
	s.unsyncedNames = false
	var f *os.File
	var end int64
	if seg != nil {
		f, end = seg.f, seg.end
	}
	s.mu.Unlock()

	var err error
	for _, old := range full {
		if !broken && err == nil {
			err = s.datasync(old.f)
		}
		old.f.Close()
		if old.useless {
			_ = s.root.Remove(journalName(old.gen))
		}
	}
	if f != nil && err == nil {
		err = s.datasync(f)
	}
	if names && err == nil {
		err = s.syncNames()
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil && !s.broken:
		s.fail(err)
	case err == nil && seg != nil && seg == s.seg && !s.broken:
		s.horizon.synced = end
		s.writeHorizon()
	}
}
