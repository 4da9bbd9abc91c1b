// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// TestHealGap measures, with a prober that dials every millisecond, for how long
// a service stands open when others remove the table.
func TestHealGap(t *testing.T) {
	for _, protect := range []bool{false, true} {
		w := newTown(t)
		w.host.Echo("tcp", ":22")
		heals := make(chan Heal, 16)
		e := start(t, w.host, Config{Protect: protect, OnHeal: func(h Heal) { heals <- h }}, service(t, "ssh", "tcp/22"))
		open(t, e, window(knocker4, "ssh", time.Hour))
		for i := range 900 { // windows to be put back
			open(t, e, window(net.IPv4(10, 0, byte(i>>8), byte(i)).String(), "ssh", time.Hour))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var probes, opened int
		var first, last time.Time
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.stranger.Watch(ctx, "tcp", host4+":22", time.Millisecond, func(s netlab.State) bool {
				mu.Lock()
				defer mu.Unlock()
				if probes++; s == netlab.Open {
					if opened++; opened == 1 {
						first = time.Now()
					}
					last = time.Now()
				}
				return true
			})
		}()
		var worst, sum, took time.Duration
		const rounds = 20
		for range rounds {
			mu.Lock()
			opened = 0
			mu.Unlock()
			w.host.Run("nft", "flush", "ruleset")
			if !protect {
				select {
				case h := <-heals:
					if h.Err != nil || h.Windows != 901 {
						t.Errorf("heal: %+v", h)
					}
					took = max(took, h.Took)
				case <-time.After(20 * time.Second):
					t.Fatal("the flush was not noticed")
				}
			}
			time.Sleep(20 * time.Millisecond) // for the prober to see
			mu.Lock()
			if opened > 0 {
				gap := last.Sub(first) + time.Millisecond
				worst, sum = max(worst, gap), sum+gap
			}
			mu.Unlock()
		}
		cancel()
		<-done
		t.Logf("protect %v: %d flushes with 901 windows, %d probes: open for %v on average, %v at worst; a heal took %v at most", protect, rounds, probes, sum/rounds, worst, took)
		if protect && worst > 0 {
			t.Errorf("a protected table was open for %v", worst)
		}
		w.want(t, w.stranger, "tcp", host4, "22", netlab.Filtered, "after all flushes")
		w.want(t, w.knocker, "tcp", host4, "22", netlab.Open, "after all flushes")
		if got := len(list(t, e)); got != 901 {
			t.Errorf("%d windows after all flushes", got)
		}
		if err := e.Stop(t.Context(), knockcore.ExitRemove); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHandClosed: who closes a window by hand means it, also after a heal.
func TestHandClosed(t *testing.T) {
	w := newTown(t)
	e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
	open(t, e, window(knocker4, "ssh", time.Hour), window(stranger4, "ssh", time.Hour))
	w.host.Run("nft", "delete", "element", "inet", DefaultTable, "ssh-4", "{ "+knocker4+" }")
	w.host.Run("nft", "add", "element", "inet", DefaultTable, "ssh-4", "{ 10.1.1.1 timeout 1h, 10.1.1.2 }")
	w.Eventually(20*time.Second, "noticed", func() bool {
		return e.runner.Load().do(&request{ctx: t.Context(), run: func() error {
			g := e.runner.Load().keeper.(*gate)
			if len(g.live) != 3 {
				return errors.New("not yet")
			}
			return nil
		}}) == nil
	})
	w.host.Run("nft", "flush", "ruleset")
	waitHealed(t, w, e)
	got := list(t, e)
	if len(got) != 3 {
		t.Errorf("after a heal: %v", got)
	}
	forever, err := keyOf(window("10.1.1.2", "ssh", 0))
	if err != nil {
		t.Fatal(err)
	}
	if expires, ok := got[forever]; !ok || !expires.IsZero() {
		t.Errorf("the element without a timeout: %v %v", expires, ok)
	}
}

// TestHealFight: two that fight over the table do not eat the machine, and the
// check says what is going on.
func TestHealFight(t *testing.T) {
	w := newTown(t)
	e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
	var err error
	for i := 0; err == nil && i < 10*healBurst; i++ {
		w.host.Run("nft", "flush", "ruleset")
		err = e.Check(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "all the time") {
		t.Errorf("check: %v", err)
	}
	w.Eventually(20*time.Second, "healed in the end", func() bool { return e.Check(t.Context()) == nil })
	open(t, e, window(knocker4, "ssh", time.Hour))
}

// TestMonitorReconnects: a monitor that lost its connection listens again.
func TestMonitorReconnects(t *testing.T) {
	w := newTown(t)
	e := start(t, w.host, Config{CheckInterval: time.Hour}, service(t, "ssh", "tcp/22"))
	m := e.runner.Load().monitor
	m.mu.Lock()
	conn := m.conn
	m.mu.Unlock()
	_ = conn.Close()
	w.Eventually(20*time.Second, "connected again", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.conn != conn
	})
	w.host.Run("nft", "flush", "ruleset")
	w.Eventually(20*time.Second, "healed", func() bool { return e.Heals() == 1 })
}

// TestHealWhileBusy: flushes in the middle of calls lose no call.
func TestHealWhileBusy(t *testing.T) {
	w := newTown(t)
	e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				if err := e.Open(t.Context(), window(net.IPv4(10, byte(i), 0, byte(j)).String(), "ssh", time.Hour)); err != nil {
					t.Errorf("open: %v", err)
				}
			}
		})
	}
	for range 5 {
		w.host.Run("nft", "flush", "ruleset")
	}
	wg.Wait()
	waitHealed(t, w, e)
	if got := len(list(t, e)); got != 800 {
		t.Errorf("%d windows are open, 800 were asked for", got)
	}
}

// TestStaleReload: rules that somebody saved and loads again, ours among them,
// do not open what was closed meanwhile, though all looks as installed.
func TestStaleReload(t *testing.T) {
	w := newTown(t)
	w.host.Echo("tcp", ":22")
	e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
	open(t, e, window(knocker4, "ssh", time.Hour), window(stranger4, "ssh", time.Hour))
	saved := w.host.Run("nft", "list", "ruleset")
	if err := e.Close(t.Context(), window(stranger4, "ssh", 0)); err != nil {
		t.Fatal(err)
	}
	w.host.RunInput("flush ruleset\n"+saved, "nft", "-f", "-")
	w.Eventually(20*time.Second, "noticed", func() bool { return e.Heals() == 1 })
	if got := list(t, e); len(got) != 1 {
		t.Errorf("open: %v", got)
	}
	w.want(t, w.stranger, "tcp", host4, "22", netlab.Filtered, "after stale rules were loaded")
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Open, "after stale rules were loaded")
}
