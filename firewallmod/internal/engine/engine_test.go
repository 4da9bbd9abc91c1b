// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// fake is a backend in memory.
type fake struct {
	mu      sync.Mutex
	windows Windows
	applied int
	refuse  netip.Prefix
	broken  string
	blocked chan struct{}
}

func (f *fake) Accepts([]*knockcore.Service) error { return nil }

func (f *fake) List(context.Context, []*knockcore.Service) (Windows, error) {
	return maps.Clone(f.windows), nil
}

func (f *fake) Install(_ context.Context, _ []*knockcore.Service, w Windows) error {
	f.windows = maps.Clone(w)
	return nil
}

func (f *fake) Apply(_ context.Context, changes []Change) error {
	if f.blocked != nil {
		<-f.blocked
	}
	f.applied++
	for _, c := range changes {
		if c.Prefix == f.refuse {
			return errors.New("refused")
		}
	}
	for _, c := range changes {
		f.windows[c.Key] = c.New
		if c.New.IsZero() {
			delete(f.windows, c.Key)
		}
	}
	return nil
}

func (f *fake) Verify(context.Context, Windows) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken, nil
}

func (f *fake) Remove(context.Context) error { f.windows = nil; return nil }

func (f *fake) Close() {}

func start(t *testing.T, f *fake, o Options) *Engine {
	t.Helper()
	e := New(f, o)
	if err := e.Setup(t.Context(), []*knockcore.Service{{Name: "ssh"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Stop(context.Background(), knockcore.ExitKeep) })
	return e
}

func window(addr byte, length time.Duration) knockcore.Window {
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, addr}), 32)
	return knockcore.Window{Prefix: p, Service: "ssh", Expires: time.Now().Add(length)}
}

// TestJoined: calls that come while one is at work are one change, and each gets
// its own error.
func TestJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{refuse: netip.MustParsePrefix("192.0.2.13/32"), blocked: make(chan struct{})}
		e := start(t, f, Options{CheckInterval: time.Hour})
		errs := make([]error, 20)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = e.Open(t.Context(), window(byte(i), time.Minute)) })
		}
		synctest.Wait() // one is at work, all others wait
		close(f.blocked)
		wg.Wait()
		for i, err := range errs {
			if (err != nil) != (i == 13) {
				t.Errorf("window %d: %v", i, err)
			}
		}
		if f.applied > len(errs)+1 {
			t.Errorf("%d changes", f.applied)
		}
		if list, _ := e.List(t.Context()); len(list) != len(errs)-1 {
			t.Errorf("%d windows", len(list))
		}
		_ = e.Stop(t.Context(), knockcore.ExitKeep)
	})
}

// TestSweep ends windows at their time, and leaves others.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		e := start(t, f, Options{CheckInterval: time.Hour})
		if err := e.Open(t.Context(), window(1, time.Minute), window(2, time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute + time.Millisecond)
		if list, _ := e.List(t.Context()); len(list) != 1 {
			t.Errorf("after a minute: %v", list)
		}
		_ = e.Stop(t.Context(), knockcore.ExitKeep)
	})
}

// TestFight: two that fight for a firewall do not eat the machine, and the
// operator is told once.
func TestFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Heal
		f := &fake{broken: "somebody else is here"}
		e := start(t, f, Options{CheckInterval: 10 * time.Millisecond, OnHeal: func(h Heal) { told = append(told, h) }})
		time.Sleep(10 * time.Second)
		if err := e.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "all the time") {
			t.Errorf("check: %v", err)
		}
		if n := e.Heals(); n < healBurst || n > 2*healBurst+1 {
			t.Errorf("%d repairs in ten seconds", n)
		}
		if n := len(told); n > 5*healBurst {
			t.Errorf("told %d times", n)
		}
		f.mu.Lock()
		f.broken = ""
		f.mu.Unlock()
		if err := e.Check(t.Context()); err != nil {
			t.Errorf("in peace: %v", err)
		}
		_ = e.Stop(t.Context(), knockcore.ExitKeep)
	})
}

func TestToken(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"ssh", "a-b", "a_b", "a.b", "a__b", strings.Repeat("x", 100), strings.Repeat("x", 101), "ü", "ssh__12345678"} {
		tok := Token(name, 16)
		if len(tok) > 16 {
			t.Errorf("%s: %s is too long", name, tok)
		}
		if other, twice := seen[tok]; twice {
			t.Errorf("%s and %s are both %s", name, other, tok)
		}
		seen[tok] = name
	}
	if Token("ssh", 16) != "ssh" {
		t.Error("a plain name is changed")
	}
}
