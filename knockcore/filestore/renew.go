// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"errors"
	"fmt"
	"time"
)

// janitor prepares segments, writes snapshots, and begins anew after an error.
func (s *Store) janitor() {
	defer s.done.Done()
	var retry <-chan time.Time
	for {
		select {
		case <-s.quit:
			s.tellLog()
			return
		case <-s.work:
		case <-retry:
			retry = nil
		}
		s.tellLog()
		if retry == nil && !s.tidy() {
			retry = time.After(s.opts.retry)
		}
	}
}

// tidy does what is to be done now; false means that it has to be tried again.
func (s *Store) tidy() bool {
	s.mu.Lock()
	ill := s.broken || s.hfile == nil
	due := s.journalBytes >= max(s.opts.segment, s.snapshotBytes)
	cause := errors.Join(s.journalErr, s.horizonErr)
	s.mu.Unlock()
	if ill && !s.toldIll {
		s.tell("error", "the state can't be written; knocks go on, but a restart forgets them and refuses frames made before it", cause)
		s.toldIll = true
	}
	if ill || due {
		err := s.renew()
		if err != nil && !ill && !s.toldDue {
			s.tell("error", "the journal grows, because no snapshot can be written", err)
		}
		if s.toldDue = err != nil && !ill; err != nil {
			return false
		}
		s.removeOld()
	}
	if s.toldIll {
		s.tell("info", "the state is written again, and whole", nil)
		s.toldIll = false
	}
	s.prepare()
	return true
}

// prepare makes the next segment ahead of need. If it can't, whoever needs it
// will find out.
func (s *Store) prepare() {
	s.mu.Lock()
	needed := s.spare == nil && !s.closed
	gen := uint64(0)
	if needed {
		gen = s.takeGen()
	}
	s.mu.Unlock()
	if !needed {
		return
	}
	seg, err := s.createSegment(gen)
	if err != nil {
		return
	}
	_ = s.datasync(seg.f) // for a power loss; the keeper finds out what is wrong
	_ = s.syncNames()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare != nil || s.closed || seg.gen < s.lastGen { // somebody could not wait
		seg.useless = true
		s.full = append(s.full, seg)
		return
	}
	s.spare = seg
}

// renew begins a generation: records go to a new segment from now on, what came
// before goes into a snapshot, and then the horizon says that the snapshot is
// what all begins with. Admissions go on all the while.
//
// The snapshot is not of one point in time. Whatever changes while it is written
// is in the new segment too, and reading that over the snapshot gives the same
// in any case: nonces are only ever added, and of a grant or ban the last record
// counts.
func (s *Store) renew() error {
	begin := time.Now()
	s.prepare()
	s.mu.Lock()
	faults := s.faults
	err := s.beginGeneration()
	gen := s.begun
	s.mu.Unlock()
	if err != nil {
		return s.notRenewed(err)
	}
	size, err := s.writeSnapshot(gen)
	if err == nil {
		err = s.needHorizon()
	}
	if err != nil {
		return s.notRenewed(err)
	}

	s.mu.Lock()
	if s.faults != faults || s.seg == nil {
		s.mu.Unlock()
		return s.notRenewed(errors.New("another write error came in between"))
	}
	s.broken, s.journalErr, s.horizonErr = false, nil, nil
	s.horizon.flags, s.horizon.boot, s.horizon.chain = 0, s.clock.id, 0
	s.horizon.base, s.horizon.last, s.horizon.synced = gen, s.seg.gen, headerLen
	s.writeHorizon()
	s.mu.Unlock()
	s.syncHorizon()

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.horizonErr != nil {
		return s.horizonErr
	}
	s.snapshotErr, s.begun = nil, 0
	// What was filled meanwhile is not in the snapshot: it counts towards the next,
	// which may be due at once.
	s.journalBytes, s.snapshotBytes = s.journalBytes-s.begunBytes, size
	notify(s.work)
	s.snapshots++
	s.snapshotTook = time.Since(begin)
	return nil
}

// beginGeneration makes records go to a segment of a new generation, s.begun. A
// generation whose snapshot failed is gone on with. The caller holds mu.
func (s *Store) beginGeneration() (err error) {
	if s.begun != 0 && s.seg != nil {
		return nil
	}
	next := s.spare
	if s.spare = nil; next == nil {
		if next, err = s.createSegment(s.takeGen()); err != nil {
			return err
		}
	}
	s.unsyncedNames = true
	if err := s.switchTo(next); err != nil {
		s.fail(err)
		return err
	}
	s.begun, s.begunBytes = next.gen, s.journalBytes
	return nil
}

// notRenewed ends a renewal that failed. A journal that was whole goes on; of
// one that was not, what was begun is of no use.
func (s *Store) notRenewed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshotErr = fmt.Errorf("writing a snapshot: %w", err)
	if !s.broken {
		return s.snapshotErr
	}
	if s.seg != nil {
		s.full = append(s.full, s.seg)
		s.seg = nil
	}
	for _, old := range s.full {
		old.useless = old.useless || s.begun != 0 && old.gen >= s.begun
	}
	s.begun = 0
	s.busy.Store(true)
	notify(s.wake) // the keeper closes them
	return s.snapshotErr
}

// needHorizon makes a horizon file if there is none. It says nothing yet, which
// a start takes for a lost horizon.
func (s *Store) needHorizon() error {
	s.mu.Lock()
	have := s.hfile != nil
	s.mu.Unlock()
	if have {
		return nil
	}
	f, err := s.createHorizon()
	if err != nil {
		return fmt.Errorf("making a horizon: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hfile, s.owned = f, false
	return nil
}

// removeOld removes the files of former generations.
func (s *Store) removeOld() {
	s.mu.Lock()
	base := s.horizon.base
	s.mu.Unlock()
	names, err := s.names()
	if err != nil {
		return
	}
	for _, name := range names {
		if gen := generation(name); gen != 0 && gen < base {
			_ = s.root.Remove(name) // what remains is tried again next time
		}
	}
}

// names lists the directory.
func (s *Store) names() ([]string, error) {
	d, err := s.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}
