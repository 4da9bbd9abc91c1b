// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// verdict is what the sink is told about an item.
type verdict struct {
	name          string
	enter, remove *item
}

// tellers is how many items are told to the sink at the same time: each may mean
// a change of a firewall.
const tellers = 16

func (s *Store) tellAll(verdicts []verdict) {
	s.mu.Lock()
	sink := s.sink
	s.mu.Unlock()
	parallel(verdicts, func(v verdict) {
		instance := ""
		if v.enter != nil {
			instance = v.enter.instance
		}
		tell(sink, v.name, v.enter, v.remove, s.nodeName(instance))
	})
}

func parallel[T any](list []T, do func(T)) {
	var wg sync.WaitGroup
	next := make(chan T)
	for range min(tellers, len(list)) {
		wg.Go(func() {
			for v := range next {
				do(v)
			}
		})
	}
	for _, v := range list {
		next <- v
	}
	close(next)
	wg.Wait()
}

// compare makes this node agree with the server.
//
// In the same epoch the server is right about everything that it has confirmed:
// what it does not have any more was deleted or is over. At the beginning of a new
// epoch it may have lost changes, deletions too; then nodes tell it what they
// know, each item with its version and each deletion with its, and the later one
// of both stands.
func (s *Store) compare(l *link, f *follower) error {
	ctx, cancel := context.WithTimeout(s.ctx, syncLimit)
	defer cancel()
	last, pos, err := s.headOf(ctx, l)
	if err != nil {
		return err
	}
	if err := s.learnAll(ctx, l); err != nil {
		return err
	}
	items, err := s.scan(ctx, l)
	if err != nil {
		return err
	}
	// What changed while we read: the last word about each item counts, so that
	// nothing appears that was deleted since.
	deleted := make(map[string]uint64)
	var orders []entry
	for {
		changes, err := s.read(ctx, l, pos, 0, batch)
		if err != nil {
			return err
		}
		for _, c := range changes {
			pos = c.id
			e, err := parseEntry(c.id, c.text)
			if err != nil || e.version != last+1 {
				return errMissed
			}
			last = e.version
			switch e.kind {
			case 'n':
				s.learn(e)
			case 'r':
				orders = append(orders, e)
			case 'd':
				delete(items, e.name)
				deleted[e.name] = e.about
			default:
				if i, err := parseItem(e.name, e.payload, e.about, e.instance, s.fromServer); err == nil {
					items[e.name] = i
					delete(deleted, e.name)
				}
			}
		}
		if len(changes) < batch {
			break
		}
	}
	lossy := f.epoch != l.epoch && f.epoch != ""
	verdicts, push := s.diff(items, deleted, last, lossy)
	s.tellAll(verdicts)
	for _, e := range orders {
		s.obey(e)
	}
	var failed atomic.Pointer[error]
	parallel(push, func(name string) {
		if failed.Load() == nil {
			if err := s.push(ctx, l, name); err != nil {
				failed.Store(&err)
			}
		}
	})
	if err := failed.Load(); err != nil {
		return *err // the next comparison must know that this epoch is not known yet
	}
	if f.epoch == "" {
		close(s.compared)
	}
	f.epoch, f.pos, f.again = l.epoch, pos, false
	s.last.Store(last)
	return nil
}

// push tells the server of an item, or of a deletion, that it may have lost.
func (s *Store) push(ctx context.Context, l *link, name string) error {
	s.mu.Lock()
	i, t := s.items[name], s.tombs[name]
	s.mu.Unlock()
	var err error
	if i == nil {
		if ttl := time.Until(t.until).Milliseconds(); ttl > 0 {
			_, err = s.change(ctx, l, "i", name, "x", strconv.FormatInt(ttl, 10), name, strconv.FormatUint(t.version, 10))
		}
		return err
	}
	payload, err := i.payload(s.toServer)
	if ttl := time.Until(i.over()).Milliseconds(); ttl > 0 && err == nil {
		var answer string
		answer, err = s.change(ctx, l, "i", name, "p", strconv.FormatInt(ttl, 10), name, payload, strconv.FormatUint(i.version, 10), i.instance)
		if text, dead := strings.CutPrefix(answer, "dead "); dead && err == nil {
			err = s.bury(name, text)
		}
	}
	return err
}

// bury ends an item that was deleted, with this version, while this node heard
// nothing.
func (s *Store) bury(name, text string) error {
	version, err := parseVersion(text)
	if err != nil {
		return err
	}
	s.mu.Lock()
	_, remove := s.judge(name, nil, version)
	sink := s.sink
	s.mu.Unlock()
	tell(sink, name, nil, remove, s.nodeName(""))
	return nil
}

// flush tells the server what it could not be told before.
func (s *Store) flush(l *link) {
	s.mu.Lock()
	unsent := s.unsent
	s.unsent = nil
	dirty := slices.Collect(maps.Keys(s.dirty))
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.ctx, syncLimit)
	defer cancel()
	now := time.Now().UnixMilli()
	for at, n := range unsent {
		ttl := s.ttl(n.Time.UnixMilli(), 0, now)
		name, payload := nonceEntry(n)
		if ttl <= 0 {
			continue
		}
		if _, err := s.change(ctx, l, "n", name, "n", strconv.FormatInt(ttl, 10), name, payload); err != nil {
			s.mu.Lock()
			s.unsent = append(s.unsent, unsent[at:]...)
			s.mu.Unlock()
			s.lost(l)
			return
		}
	}
	for _, name := range dirty {
		s.mu.Lock()
		i := s.items[name]
		s.mu.Unlock()
		var err error
		if i != nil {
			err = s.save(ctx, name, &item{grant: i.grant, ban: i.ban})
		} else if err = s.push(ctx, l, name); err == nil {
			s.mu.Lock()
			if s.items[name] == nil {
				delete(s.dirty, name)
			}
			s.mu.Unlock()
		}
		if err != nil {
			s.lost(l)
			return
		}
	}
}

// page is how many items or changes are read at once when all are.
const page = 2000

// scan reads all items.
func (s *Store) scan(ctx context.Context, l *link) (map[string]*item, error) {
	items := make(map[string]*item)
	for cursor := uint64(0); ; {
		result, err := s.do(ctx, l.client, l.client.B().Zscan().Key(s.key("index")).Cursor(cursor).Count(page).Build())
		if err != nil {
			return nil, err
		}
		part, err := result.AsScanEntry()
		if err != nil {
			return nil, err
		}
		var names, keys []string
		for n := 0; n < len(part.Elements); n += 2 { // name, score
			names, keys = append(names, part.Elements[n]), append(keys, s.key("i", part.Elements[n]))
		}
		if len(keys) > 0 {
			if result, err = s.do(ctx, l.client, l.client.B().Mget().Key(keys...).Build()); err != nil {
				return nil, err
			}
			values, err := result.ToArray()
			if err != nil || len(values) != len(names) {
				return nil, fmt.Errorf("reading items: unexpected answer (%w)", err)
			}
			for n, value := range values {
				text, err := value.ToString()
				if err != nil {
					continue // over meanwhile
				}
				i, err := parseValue(names[n], text, s.fromServer)
				if err != nil {
					s.opts.Log("warn", "what another node kept can't be read and was left out", err)
					continue
				}
				items[names[n]] = i
			}
		}
		if cursor = part.Cursor; cursor == 0 {
			return items, nil
		}
	}
}

// learnAll remembers the nonces that the log still tells of.
func (s *Store) learnAll(ctx context.Context, l *link) error {
	for pos := "0-0"; ; {
		changes, err := s.read(ctx, l, pos, 0, page)
		if err != nil {
			return err
		}
		for _, c := range changes {
			pos = c.id
			if e, err := parseEntry(c.id, c.text); err == nil && e.kind == 'n' {
				s.learn(e)
			}
		}
		if len(changes) < page {
			return nil
		}
	}
}

// sweep forgets what is over, now and then.
func (s *Store) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.swept) < sweepEvery {
		return
	}
	s.swept = now
	for name, i := range s.items {
		if !i.over().After(now) && s.pending[name] == 0 {
			delete(s.items, name)
			delete(s.dirty, name)
		}
	}
	for name, t := range s.tombs {
		if !t.until.After(now) {
			delete(s.tombs, name)
			if s.items[name] == nil {
				delete(s.dirty, name)
			}
		}
	}
}

const sweepEvery = 10 * time.Second

// diff takes in what the server has, and says what to tell the sink and which
// items the server should hear about.
func (s *Store) diff(items map[string]*item, deleted map[string]uint64, last uint64, lossy bool) (verdicts []verdict, push []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for name, i := range items {
		for s.pending[name] > 0 && s.ctx.Err() == nil {
			s.settled.Wait()
		}
		if !i.over().After(now) {
			continue
		}
		if t, dead := s.tombs[name]; dead && t.version >= i.version {
			push = append(push, name)
			continue
		}
		if enter, _ := s.judge(name, i, i.version); enter != nil {
			verdicts = append(verdicts, verdict{name, enter, nil})
		}
	}
	var missing []string
	for name, i := range s.items {
		if items[name] == nil && i.over().After(now) {
			missing = append(missing, name)
		}
	}
	for _, name := range missing {
		for s.pending[name] > 0 && s.ctx.Err() == nil {
			s.settled.Wait()
		}
		i := s.items[name]
		switch {
		case i == nil || s.dirty[name] || i.version > last: // not told yet, or the log tells
		case !lossy || deleted[name] >= i.version:
			_, remove := s.judge(name, nil, max(deleted[name], i.version))
			verdicts = append(verdicts, verdict{name, nil, remove})
		default:
			push = append(push, name)
		}
	}
	if lossy {
		for name := range s.tombs {
			if items[name] == nil {
				push = append(push, name)
			}
		}
	}
	return verdicts, push
}
