// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// noFloor is below every timestamp.
const noFloor = math.MinInt64

// found is what a start found in the directory.
type found struct {
	horizon horizon
	hfile   *os.File // nil if there is none that can be written to
	grants  map[knockcore.GrantID]*keptGrant
	bans    map[netip.Prefix]*keptBan
	now     moment
	nextGen uint64
	newest  int64 // the greatest timestamp of a nonce
	// floor is the timestamp up to which frames are to be refused, and why says
	// why; noFloor if everything is known. first says that it is a first start:
	// then the floor is for a while only.
	floor int64
	why   error
	first bool
}

// errNone says that there is no horizon at all.
var errNone = errors.New("there is no horizon")

// load reads the directory. It never fails: what can't be read is made up for by
// a floor.
func (s *Store) load(first bool) *found {
	l := &found{
		grants: make(map[knockcore.GrantID]*keptGrant), bans: make(map[netip.Prefix]*keptBan),
		now: s.clock.read(), nextGen: 1, newest: noFloor, floor: noFloor, first: first && !s.opts.DistrustEmpty,
	}
	names, err := s.names()
	for _, name := range names {
		l.nextGen = max(l.nextGen, generation(name)+1)
	}
	if err == nil {
		l.hfile, l.horizon, err = openHorizon(s.root)
	}
	now, window := s.opts.Now().UnixMilli(), s.opts.Window.Milliseconds()
	switch {
	case l.first:
		l.floor = now - 1 // what is made in this very millisecond is new
	case err != nil:
		if errors.Is(err, fs.ErrNotExist) {
			err = errNone
		}
		s.salvage(l, names)
		clear(l.grants)
		l.floor, l.why = max(now, l.newest)+window, err
	default:
		s.read(l)
	}
	return l
}

// read reads what the horizon names, and judges it.
func (s *Store) read(l *found) {
	h := &l.horizon
	var problems []error
	whole := h.flags&flagRevoked == 0 // grants: nothing is missing that was written for good
	if c, err := scanFile(s.root, snapshotName(h.base), snapshotMagic, s.apply(l)); err != nil || c.gen != h.base {
		problems = append(problems, describe(snapshotName(h.base), err))
		whole = false
	}
	for gen, next := h.base, uint64(0); ; gen = next {
		c, err := scanFile(s.root, journalName(gen), journalMagic, s.apply(l))
		short := c.end < h.synced
		switch {
		case err != nil:
		case c.gen != gen:
			err = errHeader
		case gen != h.last && (!c.sealed || c.next <= gen || c.next > h.last):
			err = errCut
		case gen == h.last && short:
			err = errCut
		case gen == h.last && h.flags&flagClean != 0 && (c.end != h.synced || c.crc != h.chain):
			err = errors.New("it is not as it was when the store was closed")
		}
		if err != nil {
			problems = append(problems, describe(journalName(gen), err))
			whole = whole && gen == h.last && !short
			break // what follows begins with what is missing
		}
		if gen == h.last {
			break
		}
		next = c.next
	}
	if !whole {
		clear(l.grants)
	}
	switch {
	case len(problems) > 0:
		l.why = errors.Join(problems...)
	case h.flags&flagMissing != 0:
		l.why = errors.New("something could not be written before the end")
	case h.flags&flagClean != 0 || h.boot.same(s.clock.id):
		return
	default:
		l.why = errors.New("it was not closed, and the machine may have been down since")
	}
	l.floor = h.ceiling
}

func describe(name string, err error) error {
	if err == nil {
		err = errHeader
	}
	return fmt.Errorf("file %s: %w", name, err)
}

// salvage reads what it can from a directory without horizon.
func (s *Store) salvage(l *found, names []string) {
	slices.Sort(names) // by generation, journals before snapshots: the order does not matter for nonces
	for _, name := range names {
		if gen := generation(name); gen != 0 {
			magic := journalMagic
			if name == snapshotName(gen) {
				magic = snapshotMagic
			}
			_, _ = scanFile(s.root, name, magic, s.apply(l))
		}
	}
}

// apply returns what is to be done with each record of a file.
func (s *Store) apply(l *found) func(*record, *header) error {
	return func(r *record, h *header) error {
		switch r.kind {
		case recordSpend:
			s.guard.Restore(r.nonce)
			l.newest = max(l.newest, r.nonce.Time.UnixMilli())
		case recordGrant:
			k := r.grant
			delete(l.grants, k.grant.ID)
			if k.end = s.rebase(l.now, k.end, k.length, h.boot); !s.grantOver(&k, l.now) {
				l.grants[k.grant.ID] = &k
			}
		case recordUngrant:
			delete(l.grants, r.id)
		case recordBan:
			k := r.ban
			delete(l.bans, k.ban.Prefix)
			if k.end = s.rebase(l.now, k.end, k.length, h.boot); !s.banForgotten(&k, l.now) {
				l.bans[k.ban.Prefix] = &k
			}
		case recordUnban:
			delete(l.bans, r.prefix)
		case recordFloor:
			s.guard.RaiseFloor(time.UnixMilli(r.floor))
		}
		return nil
	}
}

// rebase says in this boot's time when something of another boot ends: never
// later than in its whole length, whatever the clocks say.
func (s *Store) rebase(now, end moment, length time.Duration, boot bootID) moment {
	return now.in(min(s.clock.left(end, boot, now), length))
}
