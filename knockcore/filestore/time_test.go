// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// TestClockSet sets the clock back and forth by an hour between two starts. In
// the same boot that changes nothing; after a reboot the clock is believed, but
// nothing lasts longer than it was made for. No frame is ever accepted twice.
func TestClockSet(t *testing.T) {
	for _, offset := range []time.Duration{-time.Hour, time.Hour} {
		for _, reboot := range []bool{false, true} {
			m := newMachine(t)
			m.log = func(string, string, error) {}
			dir := filepath.Join(fastDir(t), "state")
			s := mustOpen(t, m.options(dir))
			spent := spend(t, s, 0, 20)
			now := time.Now()
			if err := s.SaveGrant(t.Context(), newGrant(1, 30*time.Minute, now)); err != nil {
				t.Fatal(err)
			}
			ban := knockcore.Ban{Prefix: newGrant(2, 0, now).Prefix, Made: now, Until: now.Add(20 * time.Minute), Strikes: 4}
			if err := s.SaveBan(t.Context(), ban); err != nil {
				t.Fatal(err)
			}
			mustClose(t, s)

			m.offset = offset
			if reboot {
				m.reboot()
			}
			s = mustOpen(t, m.options(dir))
			wantRefused(t, s, spent)
			grants, _ := s.Grants(t.Context())
			bans, _ := s.Bans(t.Context())
			if reboot && offset > 0 {
				if len(grants) != 0 || len(bans) != 0 {
					t.Fatalf("what is over by the clock is there: %v, %v", grants, bans)
				}
			} else {
				if len(grants) != 1 || len(bans) != 1 {
					t.Fatalf("offset %v, reboot %v: %d grants, %d bans", offset, reboot, len(grants), len(bans))
				}
				left := grants[0].Expires.Sub(s.opts.Now())
				if left > 30*time.Minute || left < 29*time.Minute || grants[0].Expires.Sub(grants[0].Made) != 30*time.Minute {
					t.Fatalf("the grant lasts %v", left)
				}
				if left := bans[0].Until.Sub(s.opts.Now()); left > 20*time.Minute || left < 19*time.Minute || bans[0].Strikes != 4 {
					t.Fatalf("the ban lasts %v", left)
				}
			}
			spent = append(spent, spend(t, s, 100, 20)...)
			s.kill()

			m.offset = 0 // and back
			s = mustOpen(t, m.options(dir))
			if replays, _ := wantRefused(t, s, spent); replays != 40 {
				t.Fatalf("%d of 40 frames are known", replays)
			}
			if n := grantCount(t, s); n != 1 && !reboot {
				t.Fatalf("%d grants", n)
			}
			s.kill()
		}
	}
}

// TestClockWasAhead: a clock that was a day ahead locks out until then if frames
// may be forgotten, and says so; not if everything is known.
func TestClockWasAhead(t *testing.T) {
	m := newMachine(t)
	var level string
	m.log = func(l, _ string, _ error) { level = l }
	dir := filepath.Join(fastDir(t), "state")
	m.offset = 24 * time.Hour
	s := mustOpen(t, m.options(dir))
	spent := spend(t, s, 0, 5)
	mustClose(t, s)
	m.offset = 0
	m.reboot()
	s = mustOpen(t, m.options(dir))
	if replays, _ := wantRefused(t, s, spent); replays != 5 {
		t.Fatal("frames are forgotten")
	}
	s.kill()
	m.reboot()
	s = mustOpen(t, m.options(dir))
	wantRefused(t, s, spent)
	if level != "error" {
		t.Fatalf("told as %q", level)
	}
	wantFresh(t, s, 10, 25*time.Hour)
}

// TestSpendWaitsOnce counts who waits for the disk: the first spend after a
// pause, nobody else. While nothing happens, nothing is written.
func TestSpendWaitsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newMachine(t).options(filepath.Join(fastDir(t), "state"))
		o.segment = segmentSize
		var writes, syncs atomic.Int64
		o.fault = func(op string) error {
			writes.Add(1)
			if op == "sync" {
				syncs.Add(1)
				time.Sleep(20 * time.Millisecond) // a disk
			}
			return nil
		}
		s := mustOpen(t, o)
		time.Sleep(time.Second)
		for range 3 {
			waits := s.Stats().Waits
			begin := time.Now()
			spend(t, s, int(begin.UnixNano()), 1)
			if took := time.Since(begin); took != 20*time.Millisecond {
				t.Fatalf("the first spend took %v", took)
			}
			for i := range 1000 {
				time.Sleep(10 * time.Millisecond)
				begin := time.Now()
				spend(t, s, int(begin.UnixNano()), 1)
				if took := time.Since(begin); took > 0 {
					t.Fatalf("spend %d took %v", i, took)
				}
			}
			if got := s.Stats().Waits - waits; got != 1 {
				t.Fatalf("%d spends waited", got)
			}
			st := s.Stats()
			if ahead := time.Until(st.Horizon); ahead < 500*time.Millisecond || ahead > lead*time.Millisecond {
				t.Fatalf("the horizon is %v ahead", ahead)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			before := writes.Load()
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			if n := writes.Load() - before; n != 0 {
				t.Fatalf("%d writes in a day without a knock", n)
			}
		}
		// 10 s of knocks each: ten fsyncs of the journal and one of the horizon a
		// second.
		if n := syncs.Load(); n > 3*10*13 {
			t.Fatalf("%d fsyncs", n)
		}
		s.kill()
	})
}

// TestFutureFrames: a frame from beyond the time window must not raise the
// horizon.
func TestFutureFrames(t *testing.T) {
	s := mustOpen(t, newMachine(t).options(filepath.Join(fastDir(t), "state")))
	now := time.Now()
	for _, c := range []struct {
		at   time.Time
		want knockcore.Reason
	}{
		{now.Add(window + time.Millisecond), knockcore.ReasonFuture},
		{now.Add(1000 * time.Hour), knockcore.ReasonFuture},
		{time.UnixMilli(1<<62 - 1), knockcore.ReasonFuture},
		{time.UnixMilli(-1 << 62), knockcore.ReasonStale},
		{now.Add(window), knockcore.ReasonNone},
	} {
		if err := s.Spend(context.Background(), newNonce(1, "alice", c.at), now, window); knockcore.ReasonOf(err) != c.want {
			t.Errorf("%v: %v, want %v", c.at, err, c.want)
		}
	}
	long := newNonce(2, string(make([]byte, 256)), now)
	if err := s.Spend(context.Background(), long, now, window); knockcore.ReasonOf(err) != knockcore.ReasonStoreError {
		t.Errorf("a client of 256 bytes: %v", err)
	}
}

// TestAfterClose: everything is an error, nothing panics, closing again is fine.
func TestAfterClose(t *testing.T) {
	s := mustOpen(t, newMachine(t).options(filepath.Join(fastDir(t), "state")))
	mustClose(t, s)
	mustClose(t, s)
	n := newNonce(1, "alice", time.Now())
	if err := s.Spend(context.Background(), n, n.Time, window); knockcore.ReasonOf(err) != knockcore.ReasonStoreError {
		t.Errorf("spend: %v", err)
	}
	g := newGrant(1, time.Hour, time.Now())
	if s.SaveGrant(t.Context(), g) == nil || s.DeleteGrant(t.Context(), g.ID) == nil {
		t.Error("grants are kept after the end")
	}
	b := knockcore.Ban{Prefix: g.Prefix, Made: g.Made, Until: g.Expires}
	if s.SaveBan(t.Context(), b) == nil || s.DeleteBan(t.Context(), b.Prefix) == nil {
		t.Error("bans are kept after the end")
	}
	if s.Health() == nil {
		t.Error("healthy")
	}
	s.Stats()
}
