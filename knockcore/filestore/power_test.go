// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// disk knows what of a directory would be there after a power loss: contents as
// of their last fsync, names as of the directory's. What was written since may
// be there or not, sector by sector, and name by name.
type disk struct {
	dir   string
	delay func() // how long an fsync takes

	mu       sync.Mutex
	contents map[*os.FileInfo][]byte
	infos    []*os.FileInfo
	names    map[string]*os.FileInfo
}

func newDisk(dir string) *disk {
	return &disk{dir: dir, delay: func() {}, contents: make(map[*os.FileInfo][]byte), names: make(map[string]*os.FileInfo)}
}

// file finds the identity of a file, which renaming does not change.
func (d *disk) file(info os.FileInfo) *os.FileInfo {
	for _, known := range d.infos {
		if os.SameFile(*known, info) {
			return known
		}
	}
	d.infos = append(d.infos, &info)
	return &info
}

// synced implements Options.synced: durable is what was there before the fsync.
func (d *disk) synced(f *os.File) func() {
	if f == nil {
		names := d.current()
		d.delay()
		return func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.names = names
		}
	}
	info, err := f.Stat()
	if err != nil {
		return func() {}
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return func() {}
	}
	d.delay()
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.contents[d.file(info)] = b
	}
}

func (d *disk) current() map[string]*os.FileInfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := make(map[string]*os.FileInfo)
	entries, _ := os.ReadDir(d.dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			names[e.Name()] = d.file(info)
		}
	}
	return names
}

// lose is what a power loss now leaves.
func (d *disk) lose(r *rand.Rand) map[string][]byte {
	now := d.current()
	d.mu.Lock()
	defer d.mu.Unlock()
	left := make(map[string][]byte)
	for name, file := range d.names {
		if now[name] == file || r.IntN(2) == 0 {
			left[name] = d.sectors(r, name, file, now)
		}
	}
	for name, file := range now {
		if d.names[name] != file && r.IntN(2) == 0 {
			left[name] = d.sectors(r, name, file, now)
		}
	}
	return left
}

// sectors mixes what is durable with what was written since.
func (d *disk) sectors(r *rand.Rand, name string, file *os.FileInfo, now map[string]*os.FileInfo) []byte {
	durable, ok := d.contents[file]
	var written []byte
	if now[name] == file {
		written, _ = os.ReadFile(filepath.Join(d.dir, name))
	}
	if !ok && len(written) > 0 { // nothing of it was ever synced
		durable = make([]byte, r.IntN(len(written)+1))
	}
	b := slices.Clone(durable)
	mode := r.IntN(3) // nothing, everything or some of what was written since
	for at := 0; at < len(written); at += 512 {
		end := min(at+512, len(written))
		if mode == 0 || mode == 1 && r.IntN(2) == 0 {
			continue
		}
		if end > len(b) {
			b = append(b, make([]byte, end-len(b))...)
		}
		copy(b[at:end], written[at:end])
	}
	return b
}

// TestPowerLoss cuts the power at random moments, with fsyncs that take their
// time, sectors that reach the disk in any order, several times in a row, and
// wants none of the acknowledged frames accepted.
func TestPowerLoss(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 15
	}
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	var frames, stale, replays int
	for round := range rounds {
		m := newMachine(t)
		// Where the whole test stands still for longer than a spend waits for the disk,
		// it goes on without: nobody wants to know such frames again.
		var without atomic.Bool
		m.log = func(_, msg string, _ error) {
			if strings.Contains(msg, "go on without") {
				without.Store(true)
			}
		}
		dir := filepath.Join(fastDir(t), "state")
		var mu sync.Mutex
		var spent []knockcore.Nonce
		for life := range 1 + r.IntN(3) {
			d := newDisk(dir)
			pause := time.Duration(r.IntN(5000)) * time.Microsecond
			d.delay = func() { time.Sleep(pause) }
			if life > 0 { // what survived is durable
				for name, file := range d.current() {
					b, err := os.ReadFile(filepath.Join(dir, name))
					if err != nil {
						t.Fatal(err)
					}
					d.contents[file] = b
					d.names[name] = file
				}
			}
			o := m.options(dir)
			o.synced = d.synced
			s, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			before := slices.Clone(spent)
			mu.Unlock()
			wantRefused(t, s, before)

			var wg sync.WaitGroup
			stop := make(chan struct{})
			for worker := range 3 {
				skew := time.Duration(r.IntN(60_001)-30_000) * time.Millisecond
				rest := time.Duration(r.IntN(1000)) * time.Microsecond
				wg.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						now := time.Now()
						n := newNonce(life<<20+i, fmt.Sprint("client", worker), now.Add(skew))
						if s.Spend(context.Background(), n, now, window) == nil {
							mu.Lock()
							spent = append(spent, n)
							mu.Unlock()
							_ = s.SaveGrant(context.Background(), newGrant(i, time.Hour, now))
						}
						time.Sleep(rest)
					}
				})
			}
			time.Sleep(time.Duration(r.IntN(30_000)) * time.Microsecond)
			mu.Lock()
			acked := slices.Clone(spent) // before the power fails
			mu.Unlock()
			left := d.lose(r)
			close(stop)
			wg.Wait()
			s.kill()
			if spent = acked; without.Swap(false) {
				spent = before
			}
			writeFiles(t, dir, left)
			m.reboot()
		}
		s, err := Open(m.options(dir))
		if err != nil {
			t.Fatal(err)
		}
		re, st := wantRefused(t, s, spent)
		frames, replays, stale = frames+len(spent), replays+re, stale+st
		// Everybody is in again soon, if their clocks are not ahead.
		wantFresh(t, s, round, lockout+2*window)
		s.kill()
	}
	t.Logf("seed %d: %d frames, %d refused as replays, %d as stale", seed, frames, replays, stale)
	if frames == 0 || stale == 0 {
		t.Fatal("the test tests nothing")
	}
}

// TestPowerLossAfterPause is the case that a horizon which follows would miss:
// the power fails right after the first knock in an hour.
func TestPowerLossAfterPause(t *testing.T) {
	// In a bubble, where no pause makes a spend go on without the disk.
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		dir := filepath.Join(fastDir(t), "state")
		d := newDisk(dir)
		o := m.options(dir)
		o.synced = d.synced
		s := mustOpen(t, o)
		spent := spend(t, s, 0, 10)
		time.Sleep(2 * syncEvery)
		m.offset = time.Hour
		now := time.Now().Add(time.Hour)
		n := newNonce(10, "alice", now)
		if err := s.Spend(context.Background(), n, now, window); err != nil {
			t.Fatal(err)
		}
		image := func() map[string][]byte { // the worst that can be
			d.mu.Lock()
			defer d.mu.Unlock()
			left := make(map[string][]byte)
			for name, file := range d.names {
				left[name] = d.contents[file]
			}
			return left
		}()
		s.kill()
		if !slices.Contains(slices.Collect(maps.Keys(image)), horizonName) {
			t.Fatal("the horizon is not durable")
		}
		writeFiles(t, dir, image)
		m.reboot()
		s = mustOpen(t, m.options(dir))
		wantRefused(t, s, append(spent, n))
		wantFresh(t, s, 11, lockout)
	})
}

// TestReboots: what is refused after which end.
func TestReboots(t *testing.T) {
	for _, c := range []struct {
		name                 string
		clean, reboot, floor bool
		unknown              bool // the system has no boot ID
	}{
		{name: "closed", clean: true},
		{name: "closed and rebooted", clean: true, reboot: true},
		{name: "killed"},
		{name: "killed and rebooted", reboot: true, floor: true},
		{name: "closed, no boot ID", clean: true, unknown: true},
		{name: "killed, no boot ID", unknown: true, floor: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			if c.unknown {
				m.boot = ""
			}
			var warned []string
			m.log = func(level, msg string, err error) {
				if level != "info" {
					warned = append(warned, fmt.Sprint(msg, err))
				}
			}
			dir := filepath.Join(fastDir(t), "state")
			s := mustOpen(t, m.options(dir))
			spent := spend(t, s, 0, 10)
			saveGrants(t, s, 0, 10)
			if c.clean {
				mustClose(t, s)
			} else {
				s.kill()
			}
			if c.reboot {
				m.reboot()
			}
			s = mustOpen(t, m.options(dir))
			if replays, _ := wantRefused(t, s, spent); replays != 10 {
				t.Errorf("%d of 10 are known", replays)
			}
			if n := grantCount(t, s); n != 10 {
				t.Errorf("%d of 10 grants", n)
			}
			// A frame that was on its way. It is as old as those that were spent: after a
			// pause a newer one would be beyond the floor.
			n := newNonce(99, "alice", spent[len(spent)-1].Time)
			if stale := s.Spend(context.Background(), n, n.Time, window) != nil; stale != c.floor || (len(warned) > 0) != c.floor {
				t.Errorf("a new frame is stale: %v; told: %q", stale, warned)
			}
			wantFresh(t, s, 100, lockout)
			// The floor stays, also over a clean restart.
			mustClose(t, s)
			s = mustOpen(t, m.options(dir))
			if stale := knockcore.ReasonOf(s.Spend(context.Background(), newNonce(98, "bob", n.Time), n.Time, window)) == knockcore.ReasonStale; stale != c.floor {
				t.Errorf("a second start forgets the floor: %v", stale)
			}
		})
	}
}

// TestFirstStart: nobody has to wait, and what was made before is refused.
func TestFirstStart(t *testing.T) {
	m := newMachine(t)
	old := newNonce(1, "alice", time.Now().Add(-2*time.Millisecond))
	for _, made := range []bool{false, true} {
		dir := filepath.Join(fastDir(t), "a", "b")
		if made {
			writeFiles(t, dir, nil)
		}
		s := mustOpen(t, m.options(dir))
		wantFresh(t, s, 1, 0)
		wantRefused(t, s, []knockcore.Nonce{old})
		mustClose(t, s)
		for name, b := range files(t, dir) {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s (%d bytes) has mode %v, %v", name, len(b), info.Mode(), err)
			}
		}
		if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
			t.Errorf("the directory has mode %v", info.Mode())
		}
	}
	o := m.options(filepath.Join(fastDir(t), "state"))
	o.DistrustEmpty = true
	s := mustOpen(t, o)
	n := newNonce(1, "alice", time.Now())
	if err := s.Spend(context.Background(), n, n.Time, window); knockcore.ReasonOf(err) != knockcore.ReasonStale {
		t.Fatalf("a distrusted directory gives %v", err)
	}
	wantFresh(t, s, 2, window+time.Millisecond)
}

// TestFirstStartBeforeClockIsSet: the first start happens with a clock that is
// hours ahead; when it is put right, nobody is locked out for hours.
func TestFirstStartBeforeClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		offset.Store(int64(2 * time.Hour))
		o := newMachine(t).options(filepath.Join(fastDir(t), "state"))
		o.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		s := mustOpen(t, o)
		offset.Store(0)
		n := newNonce(1, "alice", time.Now())
		if err := s.Spend(t.Context(), n, n.Time, window); knockcore.ReasonOf(err) != knockcore.ReasonStale {
			t.Fatalf("at once: %v", err)
		}
		time.Sleep(2*window + time.Millisecond)
		wantFresh(t, s, 2, 0)
		s.kill()
	})
}
