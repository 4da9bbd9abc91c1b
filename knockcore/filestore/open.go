// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const lockName = "lock"

// errLocked says that another open file holds the lock.
var errLocked = errors.New("locked")

// Open opens the store in a directory, and makes it if there is none. It fails
// if the directory can't be made, read or locked. Files that are damaged or
// can't be written are no failure: see the package comment for what the store
// refuses then, Options.Log and Health for how it says so.
//
// One process at a time may have the directory open, and once: over reloads, the
// caller shares the Store. The store runs two goroutines until Close.
func Open(opts Options) (*Store, error) {
	s := newStore(opts)
	first, err := s.enter()
	if err != nil {
		return nil, fmt.Errorf("opening state directory %s: %w", opts.Dir, err)
	}
	s.begin(s.load(first))
	s.done.Add(2)
	go s.keeper()
	go s.janitor()
	notify(s.work)
	return s, nil
}

func newStore(opts Options) *Store {
	opts.fill()
	return &Store{
		opts:   opts,
		clock:  newClock(opts.Now, opts.Boot),
		guard:  knockcore.NewReplayGuard(opts.Capacity),
		tried:  make(chan struct{}),
		wake:   make(chan struct{}, 1),
		urgent: make(chan struct{}, 1),
		work:   make(chan struct{}, 1),
		logs:   make(chan logLine, 16),
		quit:   make(chan struct{}),
		buf:    make([]byte, frameLen, maxRecord),
	}
}

// enter makes, opens and locks the directory. first says that there was nothing
// in it, not even the lock of an earlier process.
func (s *Store) enter() (first bool, err error) {
	if s.opts.Dir == "" {
		return false, errors.New("no directory is given")
	}
	if err := os.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return false, err
	}
	if info, err := os.Stat(s.opts.Dir); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		s.opts.Log("warn", fmt.Sprintf("state directory %s is open to others (mode %o); make it 700", s.opts.Dir, info.Mode().Perm()), nil)
	}
	if s.root, err = os.OpenRoot(s.opts.Dir); err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			if s.lock != nil {
				s.lock.Close()
			}
			s.root.Close()
		}
	}()
	first = true
	s.lock, err = s.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		first = false
		s.lock, err = s.root.OpenFile(lockName, os.O_RDWR, 0)
	}
	if err != nil {
		return false, err
	}
	if err = tryLock(s.lock); errors.Is(err, errLocked) {
		return false, s.holder()
	} else if err != nil {
		return false, err
	}
	who := fmt.Sprintf("process %d, %s, since %s\n", os.Getpid(), filepath.Base(os.Args[0]), time.Now().Format(time.RFC3339))
	if err := s.lock.Truncate(0); err == nil {
		_, _ = s.lock.WriteAt([]byte(who), 0) // only for the error message of others
	}
	names, err := s.names()
	if err != nil {
		return false, err
	}
	return first && len(names) == 1, nil
}

// holder is the error that says who has the directory.
func (s *Store) holder() error {
	b := make([]byte, 256)
	n, err := s.lock.ReadAt(b, 0)
	who := strings.ToValidUTF8(strings.TrimSpace(string(b[:n])), "?")
	if err != nil && err != io.EOF || who == "" {
		who = "another process"
	}
	return fmt.Errorf("it is in use by %s; give every process its own directory", who)
}

// begin makes the store go on from what was found: a new generation, in which a
// floor is written before the first frame is accepted.
func (s *Store) begin(l *found) {
	s.grants, s.bans, s.nextGen = l.grants, l.bans, l.nextGen
	s.firstFloor, s.opened = noFloor, time.Now()
	if l.first {
		s.firstFloor, l.floor = l.floor, noFloor
		s.opts.Log("info", fmt.Sprintf("new state directory %s: frames made before now are refused", s.opts.Dir), nil)
	} else if l.floor != noFloor {
		s.guard.RaiseFloor(time.UnixMilli(l.floor))
		s.tellFloor(l)
		s.refuses = l.floor
	}
	s.hfile, s.owned = l.hfile, true
	s.horizon = l.horizon
	if l.why != nil || l.first {
		// Whatever is written to the files before they are whole again is not to
		// be trusted either.
		s.horizon = horizon{flags: flagMissing | flagRevoked, boot: s.clock.id, base: l.horizon.base, last: l.horizon.last}
	}
	s.horizon.ceiling = max(l.horizon.ceiling, l.floor, l.newest)
	s.newest.Store(l.newest)
	s.broken = true // until renew has written everything
	if err := s.renew(); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.horizon.flags = s.horizon.flags&^flagClean | flagMissing
		s.journalErr, s.snapshotErr = err, nil
		s.writeHorizon()
		return
	}
	s.removeOld()
}

func (s *Store) tellFloor(l *found) {
	until := time.UnixMilli(l.floor)
	msg := "spent nonces may be lost, so frames made before " + until.Format(time.RFC3339Nano) + " are refused"
	if ahead := until.Sub(s.opts.Now()); ahead > s.opts.Window+2*lead*time.Millisecond {
		s.opts.Log("error", fmt.Sprintf("%s; that is %v ahead, because this machine's clock was ahead", msg, ahead.Round(time.Second)), l.why)
		return
	}
	s.opts.Log("warn", msg, l.why)
}

// Close writes what is not written yet, marks the files as whole, and lets go of
// the directory. The error says why they are not whole.
func (s *Store) Close() error {
	s.closing.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Store) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.quit)
	s.done.Wait()

	s.mu.Lock()
	ill := s.broken || s.hfile == nil
	s.mu.Unlock()
	var err error
	if ill {
		err = s.renew() // a last try
	}
	s.syncJournal()
	s.mu.Lock()
	if err == nil {
		err = errors.Join(s.journalErr, s.horizonErr)
	}
	if err == nil {
		s.horizon.flags, s.horizon.synced, s.horizon.chain = flagClean, s.seg.end, s.seg.crc
		s.writeHorizon()
	}
	s.mu.Unlock()
	s.syncHorizon()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.horizonErr
	}
	for _, seg := range append(s.full, s.seg, s.spare) {
		if seg != nil {
			seg.f.Close()
		}
	}
	if s.spare != nil {
		_ = s.root.Remove(journalName(s.spare.gen))
	}
	s.seg, s.spare, s.full = nil, nil, nil
	if s.hfile != nil {
		s.hfile.Close()
		s.hfile = nil
	}
	s.lock.Close()
	s.root.Close()
	if err != nil {
		return fmt.Errorf("closing state directory %s: %w", s.opts.Dir, err)
	}
	return nil
}

// logLine is what Options.Log is to be told, by the janitor: whoever has
// something to say may hold a lock.
type logLine struct {
	level, msg string
	err        error
}

func (s *Store) log(level, msg string, err error) {
	select {
	case s.logs <- logLine{level, msg, err}:
	default:
	}
	notify(s.work)
}

// tell tells it now.
func (s *Store) tell(level, msg string, err error) { s.opts.Log(level, msg, err) }

func (s *Store) tellLog() {
	for {
		select {
		case l := <-s.logs:
			s.opts.Log(l.level, l.msg, l.err)
		default:
			return
		}
	}
}
