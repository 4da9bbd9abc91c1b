// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Follow implements knockcore.Shared.
func (s *Store) Follow(sink knockcore.Sink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sink == nil {
		s.sink = sink
	}
	s.retell = true
	if s.interrupt != nil {
		s.interrupt()
	}
}

// follower is how far a node got in following the others.
type follower struct {
	epoch string // "" before the first comparison
	pos   string // ID of the last change taken in
	again bool   // something was missed: compare
}

var errMissed = errors.New("changes were missed")

const (
	batch     = 512 // changes read at once
	blockFor  = time.Second
	syncLimit = time.Minute // for reading everything
)

// follow takes in what others do until the store is closed. Each change has the
// version after that of the one before; when one is missing, or the epoch is
// another, everything is compared.
func (s *Store) follow() {
	defer s.done.Done()
	var f follower
	for s.ctx.Err() == nil {
		l := s.link.Load()
		if l == nil {
			s.mu.Lock()
			tried := s.tried
			s.mu.Unlock()
			if s.link.Load() == nil {
				select {
				case <-tried:
				case <-s.ctx.Done():
				}
			}
			continue
		}
		var err error
		if f.epoch != l.epoch || f.again {
			start := time.Now()
			err = s.compare(l, &f)
			s.opts.Observe("sync", time.Since(start), err)
		} else {
			err = s.listen(l, &f)
		}
		s.tellAgain()
		s.sweep()
		s.mu.Lock()
		if s.syncErr = err; errors.Is(err, errMissed) {
			s.syncErr = nil
		}
		s.mu.Unlock()
		switch {
		case errors.Is(err, errMissed):
			f.again = true
		case err != nil && s.ctx.Err() == nil:
			s.lost(l)
			select {
			case <-time.After(leastPause):
			case <-s.ctx.Done():
			}
		}
	}
}

// listen waits for changes and takes them in.
func (s *Store) listen(l *link, f *follower) error {
	s.flush(l)
	ctx, cancel := context.WithTimeout(s.ctx, blockFor+max(time.Second, s.settings.Load().Timeout))
	defer cancel()
	if s.setInterrupt(cancel) {
		return nil
	}
	changes, err := s.read(ctx, l, f.pos, blockFor, batch)
	if err != nil && s.setInterrupt(nil) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range changes {
		f.pos = c.id
		e, err := parseEntry(c.id, c.text)
		if err != nil {
			s.opts.Log("warn", "a change in the server is malformed and was left out", err)
			return errMissed
		}
		if e.version != s.last.Load()+1 {
			return errMissed
		}
		s.last.Store(e.version)
		s.delay.Store(int64(max(0, s.serverNow()-e.at)) * int64(time.Millisecond))
		s.apply(e)
	}
	if len(changes) == 0 {
		s.delay.Store(0)
		if s.link.Load() == l && s.head.Load() > s.last.Load() && !s.logEndsAt(ctx, l, f) {
			return errMissed // the log was cut
		}
	}
	return nil
}

// logEndsAt reports whether there is nothing to read behind where the follower is.
func (s *Store) logEndsAt(ctx context.Context, l *link, f *follower) bool {
	last, _, err := s.headOf(ctx, l)
	if err != nil || last == s.last.Load() {
		return true // the next look will tell
	}
	changes, err := s.read(ctx, l, f.pos, 0, 1)
	return err != nil || len(changes) > 0
}

// setInterrupt says how to end the wait, and reports whether it should end at
// once, because the sink wants to hear something.
func (s *Store) setInterrupt(cancel func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupt = cancel
	return s.retell
}

type change struct{ id, text string }

// read reads changes behind a position; it waits for some if block is positive.
func (s *Store) read(ctx context.Context, l *link, pos string, block time.Duration, most int64) ([]change, error) {
	b := l.client.B().Xread().Count(most)
	var cmd valkey.Completed
	if block > 0 {
		cmd = b.Block(block.Milliseconds()).Streams().Key(s.key("log")).Id(pos).Build()
	} else {
		cmd = b.Streams().Key(s.key("log")).Id(pos).Build()
	}
	result, err := s.do(ctx, l.client, cmd)
	if err != nil {
		return nil, err
	}
	streams, err := result.AsXRead()
	if valkey.IsValkeyNil(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var changes []change
	for _, x := range streams[s.key("log")] {
		changes = append(changes, change{x.ID, x.FieldValues["e"]})
	}
	return changes, nil
}

func (s *Store) headOf(ctx context.Context, l *link) (last uint64, pos string, err error) {
	message, err := s.eval(ctx, l.client, headScript, []string{s.key("seq"), s.key("log")})
	if err != nil {
		return 0, "", err
	}
	answer, err := message.AsStrSlice()
	if err != nil || len(answer) != 2 {
		return 0, "", fmt.Errorf("looking for the end of the log: unexpected answer (%w)", err)
	}
	last, err = parseVersion(answer[0])
	return last, answer[1], err
}

// apply takes in one change.
func (s *Store) apply(e entry) {
	switch e.kind {
	case 'n':
		s.learn(e)
		return
	case 'r':
		s.obey(e)
		return
	}
	var i *item
	if e.kind != 'd' {
		var err error
		if i, err = parseItem(e.name, e.payload, e.about, e.instance, s.fromServer); err != nil {
			s.opts.Log("warn", "what another node kept can't be read and was left out", err)
			return
		}
	}
	s.mu.Lock()
	for s.pending[e.name] > 0 && s.ctx.Err() == nil {
		s.settled.Wait() // bounded by the timeout of those changes
	}
	var gone *item
	i, gone = s.judge(e.name, i, e.about)
	sink := s.sink
	s.mu.Unlock()
	tell(sink, e.name, i, gone, s.nodeName(e.instance))
}

// judge decides what a change to an item means for this node: what to enter, or
// what to remove. i is nil for a deletion. The caller holds mu.
func (s *Store) judge(name string, i *item, version uint64) (enter, remove *item) {
	have := s.items[name]
	switch {
	case i != nil && s.tombs[name].version >= version:
		return nil, nil
	case i != nil && have != nil && have.version == version:
		return have, nil // our own, or told before
	case i != nil && have != nil && have.version > version, i == nil && have != nil && have.version > version:
		return nil, nil
	case i != nil:
		s.items[name] = i
		delete(s.dirty, name)
		return i, nil
	}
	until := time.Now().Add(leastTomb)
	if have != nil {
		if have.over().After(until) {
			until = have.over()
		}
		delete(s.items, name)
		delete(s.dirty, name)
	}
	if version > s.tombs[name].version {
		s.tombs[name] = tomb{version, until}
	}
	if have == nil {
		have = &item{} // the registry may know it nevertheless
	}
	return nil, have
}

// tell tells the sink.
func tell(sink knockcore.Sink, name string, enter, remove *item, node string) {
	switch {
	case sink == nil:
	case enter != nil && enter.grant != nil:
		sink.Enter(enter.grant, node)
	case enter != nil && enter.ban != nil:
		sink.Ban(*enter.ban)
	case remove != nil && name[:1] == grantItem:
		if id, err := knockcore.ParseGrantID(name[1:]); err == nil {
			sink.Remove(id, node)
		}
	case remove != nil && remove.ban != nil:
		sink.Lift(remove.ban.Prefix)
	}
}

// learn remembers a nonce that was spent elsewhere.
func (s *Store) learn(e entry) {
	if n, err := parseNonce(e); err == nil && e.instance != s.instance {
		// That there is no room for it matters to nobody: the server knows it.
		_ = s.guard.Spend(n, time.Now(), s.opts.Window)
	}
}

// obey does what another node told all to do.
func (s *Store) obey(e entry) {
	var sel knockcore.Selection
	if err := json.Unmarshal([]byte(e.payload), &sel); err != nil || e.instance == s.instance {
		return
	}
	s.mu.Lock()
	sink := s.sink
	s.mu.Unlock()
	if sink != nil {
		sink.Revoke(sel, s.nodeName(e.instance))
	}
}

// tellAgain tells the sink all there is, if it wants to hear it.
func (s *Store) tellAgain() {
	s.mu.Lock()
	if !s.retell || s.sink == nil {
		s.mu.Unlock()
		return
	}
	s.retell = false
	verdicts := make([]verdict, 0, len(s.items))
	for name, i := range s.items {
		verdicts = append(verdicts, verdict{name, i, nil})
	}
	s.mu.Unlock()
	s.tellAll(verdicts)
}
