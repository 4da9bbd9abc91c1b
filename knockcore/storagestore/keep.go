// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package storagestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Timeout bounds how long anybody waits for one request to the storage.
const Timeout = 2 * time.Second

var errBusy = errors.New("too many requests wait for it")

// do makes a request and waits for it no longer than Timeout: a storage may hang,
// whatever its context says.
func (s *Store) do(ctx context.Context, op string, request func(context.Context, Storage) error) error {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	err := errBusy
	select {
	case s.slots <- struct{}{}:
		answer := make(chan error, 1)
		go func() {
			defer func() { <-s.slots }()
			answer <- request(ctx, s.storage.Load().(holder))
		}()
		select {
		case err = <-answer:
		case <-ctx.Done():
			err = fmt.Errorf("no answer: %w", ctx.Err())
		}
	default:
	}
	s.opts.Observe(op, time.Since(start), err)
	return err
}

// save keeps an entry in place of what has its name.
func (s *Store) save(ctx context.Context, e *entry) error {
	if !e.over().After(time.Now()) {
		return s.drop(ctx, e.name)
	}
	e.key, e.node, e.own = root+"/"+e.name+"."+newStamp(time.Now()), s.opts.Node, true
	s.mu.Lock()
	for _, f := range s.names[e.name] {
		delete(s.entries, f.key)
		e.replaces = append(e.replaces, f.key)
		if !f.kept {
			e.replaces = append(e.replaces, f.replaces...)
		}
	}
	for _, key := range e.replaces {
		s.doomed[key] = e
	}
	s.entries[e.key], s.names[e.name] = e, []*entry{e}
	if s.removed[e.name] {
		s.again[e.name] = true
	}
	s.mu.Unlock()
	if err := s.write(ctx, e); err != nil {
		return err
	}
	for _, key := range e.replaces {
		_ = s.erase(ctx, key) // tried again by the next look
	}
	return nil
}

// write writes an entry to the storage.
func (s *Store) write(ctx context.Context, e *entry) error {
	b, err := json.Marshal(value{Node: e.node, Grant: e.grant, Ban: e.ban})
	if err != nil {
		return err
	}
	s.mu.Lock()
	switch {
	case s.entries[e.key] != e: // it has been deleted or replaced meanwhile
		s.mu.Unlock()
		return nil
	case errors.Is(s.lookErr, errGone): // it would be written beside the storage, where nobody finds it
		s.mu.Unlock()
		return errGone
	}
	s.writing[e.key]++
	s.mu.Unlock()
	written := func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.writing[e.key]--; s.writing[e.key] == 0 {
			delete(s.writing, e.key)
		}
		e.kept = e.kept || err == nil
	}
	err = s.do(ctx, "save", func(ctx context.Context, storage Storage) error {
		err := storage.Store(ctx, e.key, b)
		s.mu.Lock()
		after, doomed := s.doomed[e.key]
		doomed = doomed && (after == nil || after.kept)
		s.mu.Unlock()
		if doomed { // meanwhile, so that whoever deleted it found nothing
			_ = storage.Delete(ctx, e.key)
		}
		written(err)
		return err
	})
	if errors.Is(err, errBusy) {
		written(err)
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.saveErr = err
	}
	return err
}

// drop forgets what has a name.
func (s *Store) drop(ctx context.Context, name string) error {
	s.mu.Lock()
	var keys []string
	for _, e := range s.names[name] {
		delete(s.entries, e.key)
		keys = append(keys, e.key)
		if !e.kept {
			keys = append(keys, e.replaces...)
		}
	}
	delete(s.names, name)
	for _, key := range keys {
		s.doomed[key] = nil
	}
	s.mu.Unlock()
	var errs []error
	for _, key := range keys {
		errs = append(errs, s.erase(ctx, key))
	}
	return errors.Join(errs...)
}

// erase deletes a key; to be called for doomed ones, which the next look tries
// again.
func (s *Store) erase(ctx context.Context, key string) error {
	err := s.do(ctx, "delete", func(ctx context.Context, storage Storage) error { return missing(storage.Delete(ctx, key)) })
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.saveErr = err
	}
	return err
}
