// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package storagestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"time"
)

// errGone is that the storage has no mark that it had: it is not mounted, or was
// emptied. What it does not list says nothing then.
var errGone = errors.New("the storage is not the one that was used before: it has no mark in knock/marks any more; is it mounted? If it was emptied on purpose, restart Caddy on one node")

const (
	listLimit = time.Minute // for a listing
	// ownGrace and grace are for how long an entry that is over stays in the storage:
	// clocks may differ, and it should be who wrote it that deletes it.
	ownGrace, grace = 2 * time.Minute, 10 * time.Minute
)

// look compares what is known with what the storage lists, and tells the sink of
// differences. A look that fails changes nothing.
func (s *Store) look(ctx context.Context) error {
	s.looking.Lock()
	defer s.looking.Unlock()
	start := time.Now()
	err := s.compare(ctx)
	s.opts.Observe("sync", time.Since(start), err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lookErr = err; err == nil {
		s.looked = time.Now()
	}
	return err
}

// compare is look for whoever holds looking.
func (s *Store) compare(ctx context.Context) error {
	s.mu.Lock()
	first := len(s.marks) == 0
	var before []*entry // what the listing has to have
	for _, e := range s.entries {
		if e.kept {
			before = append(before, e)
		}
	}
	doomed := make([]string, 0, len(s.doomed))
	for key := range s.doomed {
		if s.writing[key] == 0 {
			doomed = append(doomed, key)
		}
	}
	clear(s.removed)
	s.mu.Unlock()

	listing, err := s.list(ctx, first)
	if err != nil {
		return err
	}
	same, err := s.recognize(ctx, listing, first)
	if err != nil {
		return err
	}
	if !same {
		before = nil
	}
	// Orders first: what was made after one is listed only with it.
	err = errors.Join(s.obey(ctx, listing, first), s.learn(ctx, listing), s.miss(ctx, listing, before))
	s.mu.Lock()
	again := slices.Collect(maps.Keys(s.again))
	clear(s.again)
	s.mu.Unlock()
	for _, name := range again {
		s.tell(name)
	}
	s.count(listing)
	if s.mend(ctx) && s.bury(ctx, listing, doomed) {
		s.mu.Lock()
		s.saveErr = nil
		s.mu.Unlock()
	}
	return err
}

// mend writes what the storage does not have yet, and reports whether it has all.
func (s *Store) mend(ctx context.Context) bool {
	s.mu.Lock()
	var owed []*entry
	for _, e := range s.entries {
		if !e.kept && s.writing[e.key] == 0 {
			owed = append(owed, e)
		}
	}
	s.mu.Unlock()
	for _, e := range owed {
		if s.write(ctx, e) != nil {
			return false // the next look tries again
		}
	}
	return true
}

// bury forgets what is over and deletes what no longer counts. doomed are the keys
// for which that was so before the listing: the storage has let go of those that are
// not in it. It reports whether all is deleted.
func (s *Store) bury(ctx context.Context, listing map[string]listed, doomed []string) bool {
	now := time.Now()
	var due []string
	s.mu.Lock()
	for _, e := range s.entries {
		left := grace
		if e.own {
			left = ownGrace
		}
		if now.After(e.over().Add(left)) {
			s.forget(e)
			s.doomed[e.key] = nil
		}
	}
	for _, key := range doomed {
		if _, ok := listing[key]; !ok {
			delete(s.doomed, key)
		}
	}
	for key, after := range s.doomed {
		if _, ok := listing[key]; ok && (after == nil || after.kept) {
			due = append(due, key)
		}
	}
	for key := range s.bad {
		if _, ok := listing[key]; !ok {
			delete(s.bad, key)
		}
	}
	s.mu.Unlock()
	for _, key := range due {
		if s.erase(ctx, key) != nil {
			return false
		}
	}
	return true
}

// list lists everything. A storage that was never used has nothing.
func (s *Store) list(ctx context.Context, first bool) (listing map[string]listed, err error) {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	var keys []string
	for range 3 { // a file that vanishes during a walk fails it
		if keys, err = s.storage.Load().(holder).List(ctx, root, true); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && first:
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w (%w)", errGone, err)
	case err != nil:
		return nil, err
	}
	listing = make(map[string]listed, len(keys))
	for _, key := range keys {
		if l, ok := parseKey(key); ok {
			listing[key] = l
		}
	}
	return listing, nil
}

// recognize tells by its marks whether the storage is the one that was used before.
// One that has none gets one. One that has only others was emptied and is in use
// again: what this node knows goes into it.
func (s *Store) recognize(ctx context.Context, listing map[string]listed, first bool) (same bool, err error) {
	found := make(map[string]bool)
	s.mu.Lock()
	for key, l := range listing {
		if l.folder == marks {
			found[key] = true
			same = same || s.marks[key]
		}
	}
	s.mu.Unlock()
	switch {
	case len(found) == 0 && !first:
		return false, errGone
	case len(found) == 0:
		mark := path.Join(root, marks, newStamp(time.Now())[12:]+"."+newStamp(time.Now()))
		if err := s.do(ctx, "save", func(ctx context.Context, storage Storage) error {
			return storage.Store(ctx, mark, []byte("caddy-knock recognizes its storage by this\n"))
		}); err != nil {
			return false, fmt.Errorf("marking the storage: %w", err)
		}
		found[mark] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = found
	if !same && !first {
		s.opts.Log("warn", "the storage was emptied or replaced; what this node knows goes into it again", nil)
		for _, e := range s.entries {
			e.kept = false
		}
	}
	return same, nil
}
