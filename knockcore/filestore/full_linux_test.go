// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mountSmall mounts a tmpfs of this many bytes, and skips without the rights.
func mountSmall(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("filestore", dir, "tmpfs", 0, options); err != nil {
		if os.Getenv("KNOCK_REQUIRE_REAL") == "1" {
			t.Fatal("mounting a tmpfs:", err)
		}
		t.Skip("mounting a tmpfs needs root:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes the room that is left, or with inodes all file names that are left,
// and gives it back.
func fill(t *testing.T, dir string, inodes bool) (free func()) {
	t.Helper()
	if inodes {
		dir := filepath.Join(dir, "fill")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for i := 0; os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600) == nil; i++ {
		}
		return func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	f, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskFull fills a real file system. Everybody gets in meanwhile; after a
// kill nobody gets in twice; with room again, everything is kept again.
func TestDiskFull(t *testing.T) {
	for _, options := range []string{"size=1m", "size=2m", "size=4m,nr_inodes=20"} {
		for _, recovers := range []bool{false, true} {
			t.Run(options, func(t *testing.T) {
				top := mountSmall(t, options)
				dir := filepath.Join(top, "state")
				m := newMachine(t)
				o := m.options(dir)
				o.noSync = false
				o.segment = 16 << 10
				s := mustOpen(t, o)
				spent := spend(t, s, 0, 100)
				saveGrants(t, s, 0, 20)
				free := fill(t, top, strings.Contains(options, "inodes"))
				spent = append(spent, spend(t, s, 1000, 3000)...)
				err := s.Health()
				if err == nil {
					t.Fatal("healthy on a full disk")
				}
				t.Log(err)
				spent = append(spent, spend(t, s, 10_000, 100)...)
				if recovers {
					free()
					deadline := time.Now().Add(20 * retryEvery)
					for s.Health() != nil && time.Now().Before(deadline) {
						time.Sleep(10 * time.Millisecond)
					}
					if err := s.Health(); err != nil {
						t.Fatal(err)
					}
				}
				s.kill()
				s = mustOpen(t, o) // without room, if it was not made
				_, stale := wantRefused(t, s, spent)
				if recovers != (stale == 0) {
					t.Fatalf("recovered %v, and %d frames are forgotten", recovers, stale)
				}
				if n := grantCount(t, s); n != 20 {
					t.Fatalf("%d of 20 grants", n)
				}
				wantFresh(t, s, 1, lockout)
				s.kill()
				if !recovers {
					// Killed once more on the full disk, and then once with room.
					s = mustOpen(t, o)
					wantRefused(t, s, spent)
					s.kill()
					free()
					s = mustOpen(t, o)
					wantRefused(t, s, spent)
					if err := s.Health(); err != nil {
						t.Fatal(err)
					}
					mustClose(t, s)
				}
			})
		}
	}
}

// TestFirstStartFull has no room from the beginning.
func TestFirstStartFull(t *testing.T) {
	top := mountSmall(t, "size=64k")
	m := newMachine(t)
	m.log = func(string, string, error) {}
	o := m.options(filepath.Join(top, "state"))
	free := fill(t, top, false)
	s, err := Open(o)
	if err != nil {
		t.Log(err) // not even the directory can be made
		free()
		return
	}
	if s.Health() == nil {
		t.Fatal("healthy")
	}
	spent := spend(t, s, 0, 10)
	s.kill()
	s = mustOpen(t, o)
	wantRefused(t, s, spent)
	s.kill()
	free()
	s = mustOpen(t, o)
	wantRefused(t, s, spent)
	if err := s.Health(); err != nil {
		t.Fatal(err)
	}
}

// TestReadOnly has the file system become read-only, as after an error of the
// disk: the one case in which not even a mark can be made. Health says so.
func TestReadOnly(t *testing.T) {
	top := mountSmall(t, "size=1m")
	m := newMachine(t)
	m.log = func(string, string, error) {}
	o := m.options(filepath.Join(top, "state"))
	s := mustOpen(t, o)
	spend(t, s, 0, 10)
	s.kill()
	if err := unix.Mount("", top, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o); err == nil {
		t.Fatal("opened a store that nothing can be written to")
	}
}
