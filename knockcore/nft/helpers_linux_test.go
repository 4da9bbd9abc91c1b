// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// Addresses of the usual lab: a host that is gated, one who knocks, and another.
const (
	host4, host6         = "192.0.2.1", "2001:db8:0:1::1"
	knocker4, knocker6   = "192.0.2.2", "2001:db8:0:1::2"
	stranger4, stranger6 = "198.51.100.2", "2001:db8:0:2::2"
)

// town is a lab with a host between a knocker and a stranger.
type town struct {
	*netlab.Lab
	host, knocker, stranger *netlab.NS
}

func newTown(t testing.TB) *town {
	t.Helper()
	netlab.Need(t, "nft")
	lab := netlab.New(t)
	w := &town{lab, lab.NS("host"), lab.NS("knocker"), lab.NS("stranger")}
	lab.Link(w.host, []string{host4 + "/24", host6 + "/64"}, w.knocker, []string{knocker4 + "/24", knocker6 + "/64"})
	lab.Link(w.host, []string{"198.51.100.1/24", "2001:db8:0:2::1/64"}, w.stranger, []string{stranger4 + "/24", stranger6 + "/64"})
	w.knocker.DefaultRoute(host4, host6)
	w.stranger.DefaultRoute("198.51.100.1", "2001:db8:0:2::1")
	return w
}

// service makes a service for tests.
func service(t testing.TB, name string, ports ...string) *knockcore.Service {
	t.Helper()
	s := &knockcore.Service{Name: name}
	for _, p := range ports {
		r, err := knockcore.ParsePortRange(p)
		if err != nil {
			t.Fatal(err)
		}
		s.Ports = append(s.Ports, r)
	}
	return s
}

// start sets an engine up in the namespace; it is stopped with the test.
func start(t testing.TB, ns *netlab.NS, cfg Config, services ...*knockcore.Service) *Engine {
	t.Helper()
	cfg.NetNS = ns.FD()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Stop(context.Background(), knockcore.ExitRemove) })
	if err := e.Setup(t.Context(), services); err != nil {
		t.Fatalf("setup: %v", err)
	}
	return e
}

func window(prefix, service string, length time.Duration) knockcore.Window {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		p = knockcore.AddrPrefix(netip.MustParseAddr(prefix))
	}
	return knockcore.Window{Prefix: p, Service: service, Expires: time.Now().Add(length)}
}

func open(t testing.TB, e *Engine, windows ...knockcore.Window) {
	t.Helper()
	if err := e.Open(t.Context(), windows...); err != nil {
		t.Fatalf("open: %v", err)
	}
}

func list(t testing.TB, e *Engine) map[key]time.Time {
	t.Helper()
	windows, err := e.List(t.Context())
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	m := map[key]time.Time{}
	for _, w := range windows {
		k, err := keyOf(w)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := m[k]; twice {
			t.Errorf("%v is listed twice", k)
		}
		m[k] = w.Expires
	}
	return m
}
