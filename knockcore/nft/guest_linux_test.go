// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// guestRules are rules of an operator's, with sets for windows.
const guestRules = `
table inet filter {
	set trusted4 { type ipv4_addr; flags timeout; elements = { 203.0.113.9 }; }
	set trusted6 { type ipv6_addr; flags timeout; }
	chain input {
		type filter hook input priority 0; policy accept;
		ct state established accept
		tcp dport 22 ip saddr @trusted4 accept
		tcp dport 22 ip6 saddr @trusted6 accept
		tcp dport 22 iif != lo drop
	}
	set untimed { type ipv4_addr; }
	set ranges { type ipv4_addr; flags interval, timeout; }
	set ports { type inet_service; flags timeout; }
	set small { type ipv4_addr; size 3; flags timeout; }
}
`

func guestTown(t *testing.T) *town {
	w := newTown(t)
	w.host.RunInput(guestRules, "nft", "-f", "-")
	w.host.Echo("tcp", ":22")
	return w
}

var guestSets = []SetRef{{Table: "filter", Set: "trusted4"}, {Table: "filter", Set: "trusted6"}}

func TestGuest(t *testing.T) {
	w := guestTown(t)
	elements := func() string {
		return w.host.Run("nft", "list", "set", "inet", "filter", "trusted4") + w.host.Run("nft", "list", "set", "inet", "filter", "trusted6")
	}
	services := []*knockcore.Service{service(t, "ssh", "tcp/22"), service(t, "web", "tcp/80")}
	e := start(t, w.host, Config{Sets: guestSets}, services...)
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Filtered, "before the knock")
	open(t, e, window(knocker4, "ssh", time.Hour), window(knocker4, "web", time.Minute), window(knocker6, "ssh", time.Hour))
	for _, ip := range []string{host4, host6} {
		w.want(t, w.knocker, "tcp", ip, "22", netlab.Open, "after the knock")
		w.want(t, w.stranger, "tcp", ip, "22", netlab.Filtered, "after the knock")
	}
	if text := elements(); !strings.Contains(text, `comment "caddy-knock ssh web"`) {
		t.Errorf("the element does not say why it is there:\n%s", text)
	}
	if got := list(t, e); len(got) != 3 {
		t.Errorf("listed: %v", got)
	}
	// The address stays open for the service that is left, for its time.
	if err := e.Close(t.Context(), window(knocker4, "ssh", 0), window(stranger4, "ssh", 0)); err != nil {
		t.Fatal(err)
	}
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Open, "while another service has a window")
	web, _ := keyOf(window(knocker4, "web", 0))
	if got := list(t, e); len(got) != 2 || time.Until(got[web]) > 2*time.Minute {
		t.Errorf("listed: %v", got)
	}
	// What is the operator's stays as it is.
	open(t, e, window("203.0.113.9", "ssh", time.Minute))
	if err := e.Close(t.Context(), window("203.0.113.9", "ssh", 0)); err != nil {
		t.Fatal(err)
	}
	if text := elements(); !strings.Contains(text, "203.0.113.9,") && !strings.Contains(text, "203.0.113.9 }") {
		t.Errorf("the operator's element was touched:\n%s", text)
	}
	// A reload of the operator's rules.
	w.host.RunInput("flush ruleset\n"+guestRules, "nft", "-f", "-")
	w.Eventually(20*time.Second, "windows are put back", func() bool { return e.Heals() == 1 })
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Open, "after a reload")
	w.want(t, w.knocker, "tcp", host6, "22", netlab.Open, "after a reload")
	// A flush without a reload cannot be mended by us.
	w.host.Run("nft", "flush", "ruleset")
	w.Eventually(20*time.Second, "noticed", func() bool { return e.Check(t.Context()) != nil })
	if err := e.Open(t.Context(), window(stranger4, "ssh", time.Hour)); err == nil {
		t.Error("a window opened in a set that is not there")
	}
	w.host.RunInput(guestRules, "nft", "-f", "-")
	w.Eventually(20*time.Second, "windows are put back", func() bool { return e.Check(t.Context()) == nil })
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Open, "after the rules are back")

	// Over a restart.
	if err := e.Stop(t.Context(), knockcore.ExitKeep); err != nil {
		t.Fatal(err)
	}
	e = start(t, w.host, Config{Sets: guestSets}, services...)
	if got := list(t, e); len(got) != 2 {
		t.Errorf("adopted: %v", got)
	}
	if err := e.Stop(t.Context(), knockcore.ExitClose); err != nil {
		t.Fatal(err)
	}
	if text := elements(); strings.Contains(text, "caddy-knock") || !strings.Contains(text, "203.0.113.9") {
		t.Errorf("left behind:\n%s", text)
	}
}

func TestGuestRefuses(t *testing.T) {
	w := guestTown(t)
	for set, want := range map[string]string{
		"absent": "no such file", "untimed": "flag timeout", "ranges": "flag timeout", "ports": "inet_service",
	} {
		e, err := New(Config{NetNS: w.host.FD(), Sets: []SetRef{{Table: "filter", Set: set}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Setup(t.Context(), nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), set) {
			t.Errorf("set %s: %v", set, err)
		}
	}
	e := start(t, w.host, Config{Sets: guestSets[:1]}, service(t, "ssh", "tcp/22"))
	for _, prefix := range []string{"10.0.0.0/8", "2001:db8::/64", knocker6} {
		if err := e.Open(t.Context(), window(prefix, "ssh", time.Hour)); !errors.Is(err, ErrSet) {
			t.Errorf("a window for %s: %v", prefix, err)
		}
	}
	if err := e.Close(t.Context(), window("10.0.0.0/8", "ssh", 0), window(knocker6, "ssh", 0)); err != nil {
		t.Errorf("closing what cannot be open: %v", err)
	}
}

// TestOwnErrors: of calls that go out in one commit each gets its own error.
func TestOwnErrors(t *testing.T) {
	w := guestTown(t)
	e := start(t, w.host, Config{Sets: []SetRef{{Table: "filter", Set: "small"}}}, service(t, "ssh", "tcp/22"))
	o := e.runner.Load()
	var prefixes []string
	for i := range 6 {
		prefixes = append(prefixes, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String())
	}
	prefixes = append(prefixes, "10.0.0.0/8", "2001:db8::1", "nobody")
	errs := make(chan error, len(prefixes))
	blocked, block := make(chan struct{}), make(chan struct{})
	go func() {
		_ = o.do(&request{ctx: t.Context(), run: func() error { close(blocked); <-block; return nil }})
	}()
	<-blocked
	for _, p := range prefixes {
		go func() {
			if p == "nobody" {
				errs <- e.Open(t.Context(), window("10.1.1.1", "nobody", time.Hour))
				return
			}
			errs <- e.Open(t.Context(), window(p, "ssh", time.Hour))
		}()
	}
	w.Eventually(20*time.Second, "all wait", func() bool { return len(o.requests) == len(prefixes) })
	close(block)
	count := map[string]int{}
	for range prefixes {
		switch err := <-errs; {
		case err == nil:
			count["ok"]++
		case errors.Is(err, ErrFull):
			count["full"]++
		case errors.Is(err, ErrSet):
			count["set"]++
		case errors.Is(err, ErrUnknownService):
			count["unknown"]++
		default:
			t.Error(err)
		}
	}
	if count["ok"] != 3 || count["full"] != 3 || count["set"] != 2 || count["unknown"] != 1 {
		t.Errorf("results: %v", count)
	}
	if got := list(t, e); len(got) != 3 {
		t.Errorf("listed: %v", got)
	}
}
