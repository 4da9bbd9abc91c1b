// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// echoes reports whether a session still answers. Nothing comes back from a dead
// one, so that it costs the wait.
func echoes(t *testing.T, c net.Conn, wait time.Duration) bool {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatalf("writing: %v", err)
	}
	_, err := c.Read(make([]byte, 64))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("reading: %v", err)
	}
	return err == nil
}

// drain reads what has come: while there were no rules at all, TCP may have repeated a
// write, and the server have answered it.
func drain(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	for buf := make([]byte, 64); ; {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// TestCut: with a service that cuts, flows end with their window: by the kernel
// alone, also those that the server feeds.
func TestCut(t *testing.T) {
	w := newTown(t)
	svc := service(t, "db", "tcp/5432", "udp/5432")
	svc.CutOnExpire = true
	w.host.Echo("tcp", ":5432")
	w.host.Echo("udp", ":5432")
	dial := func(network, ip string) net.Conn {
		t.Helper()
		c, err := w.knocker.Dial(network, net.JoinHostPort(ip, "5432"), 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	const dead = 600 * time.Millisecond
	old4, old6 := dial("tcp", host4), dial("tcp", host6)
	e := start(t, w.host, Config{}, svc)
	open(t, e, window(knocker4, "db", time.Hour), window(knocker6, "db", time.Hour))
	flows := []net.Conn{dial("tcp", host4), dial("tcp", host6), dial("udp", host4), dial("udp", host6)}
	for _, c := range flows {
		if !echoes(t, c, 20*time.Second) {
			t.Errorf("%v: dead while the window is open", c.RemoteAddr())
		}
	}
	if err := e.Close(t.Context(), window(knocker4, "db", 0), window(knocker6, "db", 0)); err != nil {
		t.Fatal(err)
	}
	for _, c := range flows {
		if echoes(t, c, dead) {
			t.Errorf("%v: alive after its window", c.RemoteAddr())
		}
	}
	for what, act := range map[string]func(){
		"at once":           func() {},
		"after a heal":      func() { w.host.Run("nft", "flush", "ruleset"); waitHealed(t, w, e) },
		"after a new setup": func() { _ = e.Setup(t.Context(), []*knockcore.Service{svc}) },
	} {
		act()
		for _, c := range []net.Conn{old4, old6} {
			if !echoes(t, c, 20*time.Second) {
				t.Errorf("%v, open before the first setup: dead %s", c.RemoteAddr(), what)
			}
		}
		for _, c := range flows {
			drain(c)
			if echoes(t, c, 100*time.Millisecond) {
				t.Errorf("%v: alive %s", c.RemoteAddr(), what)
			}
		}
	}
	w.want(t, w.knocker, "tcp", host4, "5432", netlab.Filtered, "a new connection")

	// Another process adopts the exemption too.
	if err := e.Stop(t.Context(), knockcore.ExitKeep); err != nil {
		t.Fatal(err)
	}
	e = start(t, w.host, Config{}, svc)
	if !echoes(t, old4, 20*time.Second) || !echoes(t, old6, 20*time.Second) {
		t.Error("a session open before the first setup is dead after adoption")
	}
	w.host.Run("nft", "delete", "table", "inet", DefaultTable)
	waitHealed(t, w, e)
	if !echoes(t, old4, 20*time.Second) {
		t.Error("a session open before the first setup is dead after adoption and heal")
	}
}

func waitHealed(t *testing.T, w *town, e *Engine) {
	t.Helper()
	w.Eventually(20*time.Second, "healed", func() bool {
		_, err := w.host.Try("nft", "list", "chain", "inet", DefaultTable, baseChain)
		return err == nil
	})
	if err := e.Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
}

// TestCutServerPush: a flow that only the server feeds ends as well; with a rule
// for established flows it revives itself (field.md fact 11).
func TestCutServerPush(t *testing.T) {
	netlab.Need(t, "nft", "conntrack")
	w := newTown(t)
	svc := service(t, "feed", "tcp/9000")
	svc.CutOnExpire = true
	l := w.host.Listen(":9000")
	go func() {
		c, err := l.Accept()
		for err == nil {
			_, err = c.Write(make([]byte, 1000))
			time.Sleep(time.Millisecond)
		}
	}()
	e := start(t, w.host, Config{}, svc)
	open(t, e, window(knocker4, "feed", time.Hour))
	c, err := w.knocker.Dial("tcp", net.JoinHostPort(host4, "9000"), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 64<<10)
	if _, err := c.Read(buf); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(t.Context(), window(knocker4, "feed", 0)); err != nil {
		t.Fatal(err)
	}
	w.host.Run("conntrack", "-F")
	// What is under way arrives, then nothing does.
	w.Eventually(20*time.Second, "the feed ends", func() bool {
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		_, err := c.Read(buf)
		return errors.Is(err, os.ErrDeadlineExceeded)
	})
}
