// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// TestSpendWhileSnapshot spends, saves and deletes while one snapshot after the
// other is written, kills, and wants everything there that was acknowledged.
func TestSpendWhileSnapshot(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(fastDir(t), "state")
	s := mustOpen(t, m.options(dir))
	var mu sync.Mutex
	var spent []knockcore.Nonce
	live := make(map[knockcore.GrantID]bool)
	var wg sync.WaitGroup
	var stop atomic.Bool
	for worker := range 3 {
		wg.Go(func() {
			for i := 0; !stop.Load() && i < 40_000; i++ { // the guard has room for them
				n := newNonce(i, fmt.Sprint("client", worker), time.Now())
				err := s.Spend(context.Background(), n, n.Time, window)
				g := newGrant(worker<<20+i, time.Hour, time.Now())
				if err == nil {
					err = s.SaveGrant(context.Background(), g)
				}
				if err == nil && i%2 == 0 {
					err = s.DeleteGrant(context.Background(), g.ID)
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				spent = append(spent, n)
				live[g.ID] = i%2 != 0
				mu.Unlock()
			}
		})
	}
	// Thirty, or those of three seconds, but no fewer than three.
	for begin := time.Now(); s.Stats().Snapshots < 30 && time.Since(begin) < time.Minute; time.Sleep(time.Millisecond) {
		if s.Stats().Snapshots >= 3 && time.Since(begin) > 3*time.Second {
			break
		}
	}
	stop.Store(true)
	wg.Wait()
	if err := s.Health(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d frames, %d snapshots, %d files", len(spent), s.Stats().Snapshots, fileCount(t, dir))
	if s.Stats().Snapshots < 3 {
		t.Fatal("too few snapshots to say anything")
	}
	s.kill()
	s = mustOpen(t, m.options(dir))
	if replays, _ := wantRefused(t, s, spent); replays != len(spent) {
		t.Fatalf("%d of %d frames are known", replays, len(spent))
	}
	grants, err := s.Grants(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range grants {
		if !live[g.ID] {
			t.Fatal("a deleted grant is back")
		}
		delete(live, g.ID)
	}
	for _, is := range live {
		if is {
			t.Fatal("a grant is lost")
		}
	}
}

// TestOldFilesGo: the directory does not grow.
func TestOldFilesGo(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(fastDir(t), "state")
	for i := range 5 {
		s := mustOpen(t, m.options(dir))
		for range 20 {
			saveGrants(t, s, 0, 100)
		}
		deadline := time.Now().Add(time.Minute)
		for fileCount(t, dir) > 8 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if n := fileCount(t, dir); n > 8 {
			t.Fatalf("%d files", n)
		}
		if i%2 == 0 {
			mustClose(t, s)
		} else {
			s.kill()
		}
	}
	for name := range files(t, dir) {
		if strings.HasSuffix(name, ".tmp") {
			t.Errorf("%s is left", name)
		}
	}
}

func fileCount(t *testing.T, dir string) int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestForgottenStayForgotten: what the guard forgot is not accepted after a
// restart, whatever the clock says.
func TestForgottenStayForgotten(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(fastDir(t), "state")
	o := m.options(dir)
	o.Capacity = 100
	var spent []knockcore.Nonce
	for life := range 4 {
		s := mustOpen(t, o)
		if life > 0 {
			wantRefused(t, s, spent)
		}
		for i := range 1000 {
			now := time.Now().Add(time.Duration(life*1000+i) * 2 * time.Second)
			n := newNonce(life*1000+i, "alice", now)
			if err := s.Spend(context.Background(), n, now, window); err != nil {
				t.Fatal(err)
			}
			spent = append(spent, n)
		}
		wantRefused(t, s, spent)
		if n := s.Nonces(); n > 100 {
			t.Fatalf("%d nonces", n)
		}
		if life%2 == 0 {
			s.kill()
		} else {
			mustClose(t, s)
		}
	}
}

// TestOpenErrors: what can't be opened, and what is none of a store's files.
func TestOpenErrors(t *testing.T) {
	m := newMachine(t)
	if _, err := Open(m.options("")); err == nil {
		t.Error("no directory")
	}
	file := filepath.Join(fastDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below"), "a\x00b"} {
		if _, err := Open(m.options(dir)); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%q: %v", dir, err)
		}
	}
	// A lock file that leads out of the directory.
	dir := filepath.Join(fastDir(t), "state")
	writeFiles(t, dir, nil)
	if err := os.Symlink(file, filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(m.options(dir)); err == nil {
		t.Error("the lock is somewhere else")
	}
	if g := generation("journal-00000000000000zz"); g != 0 {
		t.Error("a generation", g)
	}
	// A directory that others may read.
	dir = filepath.Join(fastDir(t), "open")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var told []string
	m.log = func(level, msg string, _ error) { told = append(told, level+" "+msg) }
	mustClose(t, mustOpen(t, m.options(dir)))
	if len(told) == 0 || !strings.Contains(told[0], "make it 700") {
		t.Errorf("told %q", told)
	}
}
