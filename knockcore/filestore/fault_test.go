// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// faults plays a disk that refuses.
type faults struct {
	refuse atomic.Pointer[func(op string) bool]
}

func (f *faults) set(refuse func(op string) bool) { f.refuse.Store(&refuse) }

func (f *faults) fault(op string) error {
	if refuse := f.refuse.Load(); refuse != nil && (*refuse)(op) {
		return errors.New("played: no space left on device")
	}
	return nil
}

// TestWriteErrors makes each kind of write fail from some time on. Everybody gets
// in, Health says so, and after a kill nothing is accepted again. If the disk
// recovers before that, all is as if nothing had been.
func TestWriteErrors(t *testing.T) {
	ops := []string{"journal write", "journal create", "horizon write", "sync", "snapshot write", "horizon create"}
	for _, op := range append(ops, "all") {
		for _, recovers := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, recovers %v", op, recovers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newMachine(t)
					m.log = func(string, string, error) {}
					dir := filepath.Join(fastDir(t), "state")
					var f faults
					o := m.options(dir)
					o.fault = f.fault
					s := mustOpen(t, o)
					spent := spend(t, s, 0, 20)
					saveGrants(t, s, 0, 20)
					f.set(func(what string) bool {
						return what == op || op == "all" && what != "horizon remove"
					})
					// Enough for a new segment, and for a snapshot.
					for i := range 30 {
						time.Sleep(200 * time.Millisecond)
						spent = append(spent, spend(t, s, 100+20*i, 20)...)
						_ = s.SaveGrant(context.Background(), newGrant(100+i, time.Hour, time.Now()))
					}
					if op != "horizon create" && s.Health() == nil {
						t.Fatal("healthy")
					}
					if recovers {
						f.set(func(string) bool { return false })
						time.Sleep(2 * retryEvery)
						synctest.Wait()
						if err := s.Health(); err != nil {
							t.Fatal(err)
						}
						spent = append(spent, spend(t, s, 1000, 20)...)
					}
					time.Sleep(time.Millisecond)
					s.kill()
					o.fault = nil
					s = mustOpen(t, o)
					_, stale := wantRefused(t, s, spent)
					if recovers && stale > 0 {
						t.Fatalf("%d frames are forgotten", stale)
					}
					if n := grantCount(t, s); recovers && n != 50 {
						t.Fatalf("%d of 50 grants", n)
					}
					wantFresh(t, s, 1, lockout+window)
					s.kill()
				})
			})
		}
	}
}

// TestRandomFaults makes writes fail at random, spends meanwhile, kills, opens
// again, many times over.
func TestRandomFaults(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 30
	}
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	frames, stale := 0, 0
	for range rounds {
		m := newMachine(t)
		m.log = func(string, string, error) {}
		dir := filepath.Join(fastDir(t), "state")
		var spent []knockcore.Nonce
		var mu sync.Mutex
		for life := range 1 + r.IntN(4) {
			var f faults
			o := m.options(dir)
			o.fault, o.retry = f.fault, time.Millisecond
			rnd := rand.New(rand.NewPCG(r.Uint64(), 0))
			var rndMu sync.Mutex
			chance := r.Float64() * 0.3
			fail := func(op string) bool {
				rndMu.Lock()
				defer rndMu.Unlock()
				return op != "horizon remove" && rnd.Float64() < chance
			}
			if r.IntN(3) > 0 {
				f.set(fail) // from the beginning
			}
			s, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			wantRefused(t, s, spent)
			f.set(fail)
			var wg sync.WaitGroup
			for worker := range 2 {
				n := r.IntN(300)
				skew := time.Duration(r.IntN(60_001)-30_000) * time.Millisecond
				wg.Go(func() {
					for i := range n {
						nonce := newNonce(life<<20+i, fmt.Sprint("client", worker), time.Now().Add(skew))
						if s.Spend(context.Background(), nonce, time.Now(), window) == nil {
							mu.Lock()
							spent = append(spent, nonce)
							mu.Unlock()
						}
					}
				})
			}
			wg.Wait()
			if r.IntN(4) == 0 {
				_ = s.Close()
			} else {
				s.kill()
			}
		}
		s := mustOpen(t, m.options(dir))
		_, st := wantRefused(t, s, spent)
		frames, stale = frames+len(spent), stale+st
		s.kill()
	}
	t.Logf("seed %d: %d frames, %d of them stale", seed, frames, stale)
	if frames == 0 || stale == 0 {
		t.Fatal("the test tests nothing")
	}
}

// TestNothingWritable can't even remove the horizon, and says so.
func TestNothingWritable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		var told []string
		var mu sync.Mutex
		m.log = func(level, msg string, err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, level)
		}
		var f faults
		o := m.options(filepath.Join(fastDir(t), "state"))
		o.fault = f.fault
		s := mustOpen(t, o)
		f.set(func(string) bool { return true })
		spend(t, s, 0, 10)
		if s.Health() == nil {
			t.Fatal("healthy")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		mu.Lock()
		errs := slices.DeleteFunc(slices.Clone(told), func(level string) bool { return level != "error" })
		mu.Unlock()
		if len(errs) != 1 {
			t.Fatalf("told %v", told)
		}
		g := newGrant(1, time.Hour, time.Now())
		if s.SaveGrant(t.Context(), g) == nil {
			t.Fatal("no word of a grant that is not kept")
		}
		if s.DeleteGrant(t.Context(), g.ID) == nil {
			t.Fatal("no word of a revocation that is not kept")
		}
		if err := s.Close(); err == nil {
			t.Fatal("closed without a word")
		}
	})
}

// TestRevokedWhileBroken revokes a grant that can't be struck out: it must not be
// back after a restart.
func TestRevokedWhileBroken(t *testing.T) {
	for _, revoke := range []bool{false, true} {
		m := newMachine(t)
		m.log = func(string, string, error) {}
		dir := filepath.Join(fastDir(t), "state")
		var f faults
		o := m.options(dir)
		o.fault = f.fault
		s := mustOpen(t, o)
		saveGrants(t, s, 0, 10)
		f.set(func(op string) bool { return op == "journal write" || op == "snapshot write" })
		spend(t, s, 0, 1)
		want := 10
		if revoke {
			if err := s.DeleteGrant(t.Context(), newGrant(3, 0, time.Now()).ID); err != nil {
				t.Fatal(err)
			}
			want = 0
		}
		s.kill()
		s = mustOpen(t, m.options(dir))
		if n := grantCount(t, s); n != want {
			t.Errorf("revoked %v: %d grants, want %d", revoke, n, want)
		}
		s.kill()
	}
}

// TestHangingDisk has an fsync that takes a minute: spends after the first do not
// wait for it.
func TestHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.log = func(string, string, error) {}
		o := m.options(filepath.Join(fastDir(t), "state"))
		var hangs atomic.Bool
		o.fault = func(op string) error {
			if op == "sync" && hangs.Load() {
				time.Sleep(time.Minute)
			}
			return nil
		}
		s := mustOpen(t, o)
		spend(t, s, 0, 1)
		time.Sleep(time.Hour)
		hangs.Store(true)
		begin := time.Now()
		spend(t, s, 10, 1)
		if took := time.Since(begin); took != patience {
			t.Fatalf("the first spend took %v", took)
		}
		if s.Health() == nil {
			t.Fatal("healthy")
		}
		begin = time.Now()
		spent := spend(t, s, 20, 100)
		if took := time.Since(begin); took != 0 {
			t.Fatalf("the next ones took %v", took)
		}
		hangs.Store(false)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if err := s.Health(); err != nil {
			t.Fatal(err)
		}
		s.kill()
		s = mustOpen(t, m.options(o.Dir))
		if _, stale := wantRefused(t, s, spent); stale > 0 {
			t.Fatal("frames are forgotten")
		}
		s.kill()
	})
}

// TestContext: a spend that is given up while it waits is an error, and spent.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newMachine(t).options(filepath.Join(fastDir(t), "state"))
		var hangs atomic.Bool
		o.fault = func(op string) error {
			if op == "sync" && hangs.Load() {
				time.Sleep(time.Minute)
			}
			return nil
		}
		s := mustOpen(t, o)
		time.Sleep(time.Hour)
		hangs.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		n := newNonce(1, "alice", time.Now())
		err := s.Spend(ctx, n, time.Now(), window)
		if knockcore.ReasonOf(err) != knockcore.ReasonStoreError || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		wantRefused(t, s, []knockcore.Nonce{n})
		hangs.Store(false)
		s.kill()
	})
}
