// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package storagestore

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const (
	loaders = 8 // how many entries are read at once
	// orderLife is how long an order is there to be heard.
	orderLife = time.Hour
)

// missing is the error, nil if it is only that something is not there.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// load reads what stands behind a key.
func (s *Store) load(ctx context.Context, key string) (b []byte, err error) {
	answer := make(chan []byte, 1)
	err = s.do(ctx, "load", func(ctx context.Context, storage Storage) error {
		b, err := storage.Load(ctx, key)
		answer <- b
		return err
	})
	if err != nil {
		return nil, err
	}
	return <-answer, nil
}

// obey carries out orders that are new. What was ordered before the first look is
// not kept any more.
func (s *Store) obey(ctx context.Context, listing map[string]listed, first bool) error {
	var errs []error
	for key, l := range listing {
		if l.folder != orders {
			continue
		}
		s.mu.Lock()
		if time.Since(l.written) > orderLife {
			s.doomed[key] = nil
		}
		done := first || s.ordered[key] || time.Since(l.written) > orderLife
		s.ordered[key] = true
		sink := s.sink
		s.mu.Unlock()
		if done || sink == nil {
			continue
		}
		var v value
		b, err := s.load(ctx, key)
		if err == nil && (json.Unmarshal(b, &v) != nil || v.Order == nil) {
			s.spoil(key, errEntry)
			continue
		}
		if err != nil {
			s.mu.Lock()
			delete(s.ordered, key)
			s.mu.Unlock()
			errs = append(errs, missing(err))
			continue
		}
		sink.Revoke(*v.Order, v.Node)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.ordered {
		if l, ok := parseKey(key); !ok || time.Since(l.written) > 2*orderLife {
			delete(s.ordered, key)
		}
	}
	return errors.Join(errs...)
}

// spoil notes that a key can't be used.
func (s *Store) spoil(key string, err error) {
	s.opts.Log("warn", "an entry of the storage can't be used: "+key, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad[key] = err
}

// learn takes in what is new.
func (s *Store) learn(ctx context.Context, listing map[string]listed) error {
	var fresh []listed
	s.mu.Lock()
	for key, l := range listing {
		_, doomed := s.doomed[key]
		if (l.folder == grants || l.folder == bans) && s.entries[key] == nil && !doomed && s.bad[key] == nil {
			fresh = append(fresh, l)
		}
	}
	s.unread = len(fresh)
	s.mu.Unlock()
	return each(fresh, func(l listed) error {
		err := s.enter(ctx, l)
		if err == nil {
			s.mu.Lock()
			s.unread--
			s.mu.Unlock()
		}
		return err
	})
}

// each does something to all of a list, to several at once, and returns the first
// error, with which it stops.
func each[T any](list []T, do func(T) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	next := 0
	for range min(loaders, len(list)) {
		wg.Go(func() {
			for {
				mu.Lock()
				if failed != nil || next == len(list) {
					mu.Unlock()
					return
				}
				item := list[next]
				next++
				mu.Unlock()
				if err := do(item); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// enter reads an entry that another node, or a former life of this one, wrote.
func (s *Store) enter(ctx context.Context, l listed) error {
	b, err := s.load(ctx, l.key)
	if err != nil {
		return missing(err) // deleted meanwhile
	}
	e, err := parseEntry(l, b, time.Now())
	if err != nil {
		s.spoil(l.key, err)
		return nil
	}
	s.mu.Lock()
	if _, doomed := s.doomed[e.key]; doomed || s.entries[e.key] != nil {
		s.mu.Unlock()
		return nil
	}
	s.entries[e.key], s.names[e.name] = e, append(s.names[e.name], e)
	s.mu.Unlock()
	s.tell(e.name)
	return nil
}

// miss finds what is not in the listing any more: somebody deleted or replaced it.
// The storage is asked for each such entry, since listings may be late or short.
func (s *Store) miss(ctx context.Context, listing map[string]listed, before []*entry) error {
	gone := slices.DeleteFunc(before, func(e *entry) bool { _, ok := listing[e.key]; return ok })
	return each(gone, func(e *entry) error {
		if _, err := s.load(ctx, e.key); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.mu.Lock()
		known := s.entries[e.key] == e
		if known {
			s.forget(e)
		}
		s.mu.Unlock()
		if known && e.over().After(time.Now()) {
			s.tell(e.name)
		}
		return nil
	})
}

// forget drops an entry. The caller holds mu.
func (s *Store) forget(e *entry) {
	delete(s.entries, e.key)
	rest := slices.DeleteFunc(s.names[e.name], func(other *entry) bool { return other == e })
	if len(rest) == 0 {
		delete(s.names, e.name)
	} else {
		s.names[e.name] = rest
	}
}

// tell tells the sink how things stand with a name. It may have changed by then:
// then it tells again.
func (s *Store) tell(name string) {
	for {
		s.mu.Lock()
		e, sink := s.current(name), s.sink
		if e == nil {
			s.removed[name] = true
		}
		s.mu.Unlock()
		if sink == nil {
			return
		}
		folder, id, _ := strings.Cut(name, "/")
		switch {
		case e != nil && e.grant != nil:
			sink.Enter(e.grant, e.node)
		case e != nil:
			sink.Ban(*e.ban)
		case folder == grants:
			if id, err := knockcore.ParseGrantID(id); err == nil {
				sink.Remove(id, "another node")
			}
		default:
			if p, err := parseBanName(id); err == nil {
				sink.Lift(p)
			}
		}
		s.mu.Lock()
		settled := s.current(name) == e
		s.mu.Unlock()
		if settled {
			return
		}
	}
}
