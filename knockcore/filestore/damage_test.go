// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// template is a directory with everything in it: a snapshot, a sealed segment and
// one that is being written.
type template struct {
	m     *machine
	files map[string][]byte
	spent []knockcore.Nonce
}

func newTemplate(t *testing.T, clean bool) *template {
	t.Helper()
	m := newMachine(t)
	m.log = func(string, string, error) {}
	dir := filepath.Join(fastDir(t), "state")
	s := mustOpen(t, m.options(dir))
	tpl := &template{m: m}
	tpl.spent = spend(t, s, 0, 20)
	saveGrants(t, s, 0, 5)
	mustClose(t, s)
	// The second start writes a snapshot of that, and fills more than a segment.
	o := m.options(dir)
	o.fault = func(op string) error {
		if op == "snapshot write" && s == nil {
			return errPlayed // later snapshots fail, so that there are several segments
		}
		return nil
	}
	s2 := mustOpen(t, o)
	s = nil
	tpl.spent = append(tpl.spent, spend(t, s2, 20, 200)...)
	saveGrants(t, s2, 5, 5)
	if clean {
		mustClose(t, s2)
	} else {
		s2.kill()
	}
	tpl.files = files(t, dir)
	if len(tpl.used(t)) < 4 {
		t.Fatalf("the template has %v", slices.Sorted(maps.Keys(tpl.files)))
	}
	return tpl
}

var errPlayed = fmt.Errorf("played: %w", errCut)

// try opens a damaged directory. Nothing that was accepted may be accepted again,
// and somebody who comes a little later must get in.
func (tpl *template) try(t *testing.T, dir string, damaged map[string][]byte, horizonDamaged bool) (noticed bool) {
	t.Helper()
	writeFiles(t, dir, damaged)
	s, err := Open(tpl.m.options(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.kill()
	noticed = !s.guard.Floor().Before(tpl.spent[len(tpl.spent)-1].Time.Truncate(time.Millisecond))
	wantRefused(t, s, tpl.spent)
	after := lockout
	if horizonDamaged {
		after += window
	}
	wantFresh(t, s, 1, after)
	return noticed
}

// look does what try does without beginning anew, which is the quicker part: it
// leaves the directory as it is.
func (tpl *template) look(t *testing.T, dir string) (noticed bool) {
	t.Helper()
	s := newStore(tpl.m.options(dir))
	first, err := s.enter()
	if err != nil {
		t.Fatal(err)
	}
	defer s.root.Close()
	defer s.lock.Close()
	l := s.load(first)
	if l.hfile != nil {
		l.hfile.Close()
	}
	s.firstFloor = noFloor
	if l.floor != noFloor {
		s.guard.RaiseFloor(time.UnixMilli(l.floor))
	}
	for _, n := range tpl.spent {
		if err := s.guard.Spend(n, n.Time, window); err == nil {
			t.Fatalf("a frame of %v is accepted again; floor %v", n.Time.UnixMilli(), l.floor)
		}
	}
	return l.floor >= tpl.spent[len(tpl.spent)-1].Time.UnixMilli()
}

// used lists the files that matter: not the lock, nor segments that nothing was
// written to.
func (tpl *template) used(t *testing.T) []string {
	h, err := decodeHorizon(tpl.files[horizonName])
	if err != nil {
		t.Fatal(err)
	}
	names := []string{horizonName, snapshotName(h.base)}
	for gen := h.base; ; {
		names = append(names, journalName(gen))
		if gen == h.last {
			return names
		}
		b := tpl.files[journalName(gen)]
		c, err := scan(bytes.NewReader(b), int64(len(b)), journalMagic, func(*record, *header) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		gen = c.next
	}
}

func TestTruncatedAtEveryOffset(t *testing.T) {
	for _, clean := range []bool{false, true} {
		t.Run(fmt.Sprint("clean ", clean), func(t *testing.T) {
			tpl := newTemplate(t, clean)
			dir := filepath.Join(fastDir(t), "state")
			if tpl.try(t, dir, tpl.files, false) {
				t.Fatal("damage is seen where there is none")
			}
			tries := 0
			writeFiles(t, dir, tpl.files)
			for _, name := range tpl.used(t) {
				b := tpl.files[name]
				for length := range b {
					harmless := name == horizonName && length >= horizonLen
					damaged := maps.Clone(tpl.files)
					damaged[name] = b[:length]
					if length%100 == 0 || length == horizonLen {
						if !tpl.try(t, dir, damaged, name == horizonName) && !harmless {
							t.Fatalf("%s cut at %d of %d is not noticed", name, length, len(b))
						}
						writeFiles(t, dir, tpl.files)
						tries++
						continue
					}
					switch end := len(bytes.TrimRight(b, "\x00")); {
					case length > end+40 && length%101 != 0: // in the room behind the records
						continue
					case (clean || testing.Short()) && length > 200 && length%23 != 0:
						continue
					}
					if err := os.WriteFile(filepath.Join(dir, name), b[:length], 0o600); err != nil {
						t.Fatal(err)
					}
					if !tpl.look(t, dir) && !harmless {
						t.Fatalf("%s cut at %d of %d is not noticed", name, length, len(b))
					}
					tries++
				}
				writeFiles(t, dir, tpl.files)
			}
			t.Logf("%d tries", tries)
		})
	}
}

func TestFilesMissing(t *testing.T) {
	for _, clean := range []bool{false, true} {
		tpl := newTemplate(t, clean)
		dir := filepath.Join(fastDir(t), "state")
		for name := range tpl.files {
			damaged := maps.Clone(tpl.files)
			delete(damaged, name)
			if noticed := tpl.try(t, dir, damaged, name == horizonName); noticed != slices.Contains(tpl.used(t), name) {
				t.Errorf("clean %v: %s is missing: noticed %v", clean, name, noticed)
			}
		}
		// Everything but the lock.
		tpl.try(t, dir, map[string][]byte{lockName: nil}, true)
		tpl.try(t, dir, map[string][]byte{"something else": nil}, true)
	}
}

func TestBitFlips(t *testing.T) {
	rounds := 1500
	if testing.Short() {
		rounds = 100
	}
	for _, clean := range []bool{false, true} {
		t.Run(fmt.Sprint("clean ", clean), func(t *testing.T) {
			tpl := newTemplate(t, clean)
			dir := filepath.Join(fastDir(t), "state")
			r := rand.New(rand.NewPCG(1, 2))
			names := tpl.used(t)
			noticed := 0
			for range rounds {
				name := names[r.IntN(len(names))]
				b := bytes.Clone(tpl.files[name])
				length := len(b)
				if name == horizonName {
					length = horizonLen
				}
				at := r.IntN(length)
				for range 1 + r.IntN(3) {
					b[at] ^= 1 << r.IntN(8)
					at = r.IntN(length)
				}
				if bytes.Equal(b, tpl.files[name]) {
					continue
				}
				damaged := maps.Clone(tpl.files)
				damaged[name] = b
				if !tpl.try(t, dir, damaged, name == horizonName) {
					t.Fatalf("flipped bits in %s are not noticed", name)
				}
				noticed++
			}
			t.Logf("%d of %d rounds", noticed, rounds)
		})
	}
}

// TestBlocksZeroed takes single blocks out of files, as a bad disk does.
func TestBlocksZeroed(t *testing.T) {
	tpl := newTemplate(t, false)
	dir := filepath.Join(fastDir(t), "state")
	for name, b := range tpl.files {
		for at := 0; at < len(b); at += 512 {
			damaged := maps.Clone(tpl.files)
			c := bytes.Clone(b)
			clear(c[at:min(at+512, len(c))])
			damaged[name] = c
			if bytes.Equal(b, c) || name == lockName {
				continue
			}
			tpl.try(t, dir, damaged, name == horizonName)
		}
	}
}

// TestSegmentsSwapped puts a whole, valid segment in the place of another, and a
// former state of one in its own.
func TestSegmentsSwapped(t *testing.T) {
	tpl := newTemplate(t, false)
	dir := filepath.Join(fastDir(t), "state")
	journals := tpl.used(t)[2:]
	for _, a := range journals {
		for _, b := range journals {
			if a != b {
				damaged := maps.Clone(tpl.files)
				damaged[a] = tpl.files[b]
				if !tpl.try(t, dir, damaged, false) {
					t.Errorf("%s in place of %s is not noticed", b, a)
				}
			}
		}
	}
}

// TestGrantsAfterDamage: grants are kept while it is certain that no revocation
// is among what is missing.
func TestGrantsAfterDamage(t *testing.T) {
	for _, c := range []struct {
		name   string
		synced bool // the last record was fsynced before
		damage func(all map[string][]byte, snapshot, journal string, end int)
		want   int
	}{
		{"last record damaged", false, func(all map[string][]byte, _, journal string, end int) { all[journal][end-1] ^= 1 }, 10},
		{"last record missing", true, func(all map[string][]byte, _, journal string, end int) { clear(all[journal][end-frameLen-9:]) }, 0},
		{"last record damaged after its fsync", true, func(all map[string][]byte, _, journal string, end int) { all[journal][end-1] ^= 1 }, 0},
		{"first record damaged", true, func(all map[string][]byte, _, journal string, _ int) { all[journal][headerLen+frameLen] ^= 1 }, 0},
		{"snapshot damaged", true, func(all map[string][]byte, snapshot, _ string, _ int) { all[snapshot][headerLen+frameLen] ^= 1 }, 0},
		{"snapshot missing", true, func(all map[string][]byte, snapshot, _ string, _ int) { delete(all, snapshot) }, 0},
		{"horizon missing", true, func(all map[string][]byte, _, _ string, _ int) { delete(all, horizonName) }, 0},
		{"horizon damaged", true, func(all map[string][]byte, _, _ string, _ int) { all[horizonName][40] ^= 1 }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			// In a bubble the keeper never syncs by itself, however long this takes.
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				m.log = func(string, string, error) {}
				dir := filepath.Join(fastDir(t), "state")
				s := mustOpen(t, m.options(dir))
				saveGrants(t, s, 0, 10)
				sync := func() {
					s.syncJournal() // as the keeper does every 100 ms
				}
				spent := spend(t, s, 0, 10)
				sync()
				// The last one is the revocation of a grant that is none.
				saveGrants(t, s, 10, 1)
				if err := s.DeleteGrant(t.Context(), newGrant(10, 0, time.Now()).ID); err != nil {
					t.Fatal(err)
				}
				if c.synced {
					sync()
				}
				h := s.horizon
				end := int(s.seg.end)
				s.kill()
				all := files(t, dir)
				c.damage(all, snapshotName(h.base), journalName(h.last), end)
				writeFiles(t, dir, all)
				s = mustOpen(t, m.options(dir))
				wantRefused(t, s, spent)
				if s.guard.Floor().IsZero() {
					t.Error("the damage is not noticed")
				}
				got := grantCount(t, s)
				if c.want > 0 && got == c.want+1 {
					got-- // the one whose revocation was lost before it was fsynced
				}
				if got != c.want {
					t.Errorf("%d grants, want %d", got, c.want)
				}
			})
		})
	}
}

// TestRefuses: while frames are refused because nonces may be lost, the store says so.
func TestRefuses(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(fastDir(t), "state")
	s := mustOpen(t, m.options(dir))
	if until := s.Refuses(); !until.IsZero() {
		t.Errorf("new, and refuses until %v", until)
	}
	mustClose(t, s)
	if err := os.WriteFile(filepath.Join(dir, horizonName), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, m.options(dir))
	defer mustClose(t, s)
	if s.Refuses().IsZero() || s.Health() != nil {
		t.Errorf("refuses until %v, %v", s.Refuses(), s.Health())
	}
}
