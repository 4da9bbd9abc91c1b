// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const window = knockcore.DefaultWindow

// machine plays a machine: its boots and its clock.
type machine struct {
	boot   string
	up     time.Time // when it was booted
	offset time.Duration
	log    func(level, msg string, err error)
}

func newMachine(t testing.TB) *machine {
	return &machine{boot: "first boot", up: time.Now(), log: func(level, msg string, err error) {
		if level != "info" {
			t.Log(level, msg, err)
		}
	}}
}

func (m *machine) reboot() { m.boot, m.up = m.boot+"'", time.Now() }

func (m *machine) options(dir string) Options {
	boot, up, offset := m.boot, m.up, m.offset
	return Options{
		Dir: dir, noSync: true, segment: minSegment, Log: m.log,
		Boot: func() (string, time.Duration) { return boot, time.Since(up) },
		Now:  func() time.Time { return time.Now().Add(offset) },
	}
}

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.kill() })
	return s
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// kill ends a store as kill -9 ends its process: nothing more is written.
func (s *Store) kill() {
	s.closing.Do(func() {
		close(s.quit)
		s.done.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closed = true
		for _, seg := range append(s.full, s.seg, s.spare) {
			if seg != nil {
				seg.f.Close()
			}
		}
		if s.hfile != nil {
			s.hfile.Close()
		}
		s.lock.Close()
		s.root.Close()
	})
}

// newNonce makes the i-th nonce of a client.
func newNonce(i int, client string, at time.Time) knockcore.Nonce {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(i))
	return knockcore.Nonce{Key: knockcore.NewReplayKey(knockcore.ReplayUDP, client, b[:]), Client: client, Time: at}
}

// spend spends n new nonces and returns them.
func spend(t testing.TB, s *Store, from, n int) []knockcore.Nonce {
	t.Helper()
	var spent []knockcore.Nonce
	for i := range n {
		now := s.opts.Now()
		nonce := newNonce(from+i, fmt.Sprint("client", i%3), now)
		if err := s.Spend(context.Background(), nonce, now, window); err != nil {
			t.Fatal(err)
		}
		spent = append(spent, nonce)
	}
	return spent
}

// wantRefused wants every one of the nonces refused: as seen, or as stale.
func wantRefused(t testing.TB, s *Store, spent []knockcore.Nonce) (replays, stale int) {
	t.Helper()
	for _, n := range spent {
		// now is a time at which the frame is in time.
		switch err := s.Spend(context.Background(), n, n.Time, window); knockcore.ReasonOf(err) {
		case knockcore.ReasonReplay:
			replays++
		case knockcore.ReasonStale:
			stale++
		default:
			t.Fatalf("a frame of %v is accepted again: %v; floor %v", n.Time.UnixMilli(), err, s.guard.Floor().UnixMilli())
		}
	}
	return replays, stale
}

// wantFresh wants a frame accepted that is made as long after the store's now.
func wantFresh(t testing.TB, s *Store, i int, after time.Duration) {
	t.Helper()
	at := s.opts.Now().Add(after)
	if err := s.Spend(context.Background(), newNonce(i, "fresh", at), at, window); err != nil {
		t.Fatalf("a frame made %v from now: %v", after, err)
	}
}

// lockout is after what time at most frames are accepted again when the horizon
// is the floor.
const lockout = (lead + 1) * time.Millisecond

func newGrant(i int, length time.Duration, now time.Time) *knockcore.Grant {
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	return &knockcore.Grant{
		ID: knockcore.GrantID{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i), 1}, Client: fmt.Sprint("client", i%50), Service: "ssh",
		Method: knockcore.MethodUDP, Scope: knockcore.ScopeAddress, Prefix: knockcore.AddrPrefix(addr), Source: addr,
		Made: now, Expires: now.Add(length), Uses: -1,
	}
}

func saveGrants(t testing.TB, s *Store, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		if err := s.SaveGrant(context.Background(), newGrant(i, time.Hour, s.opts.Now())); err != nil {
			t.Fatal(err)
		}
	}
}

func grantCount(t testing.TB, s *Store) int {
	t.Helper()
	grants, err := s.Grants(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return len(grants)
}

// fastDir is a new directory, in memory if there is such a file system.
func fastDir(t testing.TB) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "filestore"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

// files reads a directory; write makes it again.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = b
	}
	return all
}

func writeFiles(t testing.TB, dir string, all map[string][]byte) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range all {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
