// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// guard is a gatekeeper with a dispatcher in front of it, by a clock of the test.
type guard struct {
	t    testing.TB
	gate *knockcore.Gatekeeper
	*Dispatcher

	mu     sync.Mutex
	now    time.Time
	events []knockcore.Event
}

// setup is what a guard is made of; the zero value of each field has a usable
// default.
type setup struct {
	clients  []*knockcore.Client
	services []*knockcore.Service
	dispatch DispatchConfig
	now      time.Time
	window   time.Duration
	limits   *knockcore.Limiter
	local    func(netip.Addr) bool
}

var allDatagrams = knockcore.NewMethodSet(DatagramMethods...)

func service(name string, ports ...string) *knockcore.Service {
	s := &knockcore.Service{Name: name}
	for _, p := range ports {
		r, err := knockcore.ParsePortRange(p)
		if err != nil {
			panic(err)
		}
		s.Ports = append(s.Ports, r)
	}
	return s
}

func newGuard(t testing.TB, s setup) *guard {
	t.Helper()
	ring, err := knockcore.NewKeyring(s.clients)
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{t: t, now: s.now}
	if g.now.IsZero() {
		g.now = time.Now()
	}
	g.gate, err = knockcore.NewGatekeeper(knockcore.Config{
		Keyring: ring, Services: s.services, Window: s.window, Limits: s.limits, Local: s.local,
		Observer: func(e knockcore.Event) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.events = append(g.events, e)
		},
		Now: func() time.Time {
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.now
		},
	}, knockcore.NewState(knockcore.NewMemoryStore(0), 0))
	if err != nil {
		t.Fatal(err)
	}
	if s.dispatch.Methods == 0 {
		s.dispatch.Methods = allDatagrams
	}
	if s.dispatch.Sequences == nil {
		if s.dispatch.Sequences, err = wire.NewUDPSequences(wire.UDPSequenceConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.dispatch.Validate(s.services, ring); err != nil {
		t.Fatal(err)
	}
	g.Dispatcher = NewDispatcher(s.dispatch, g.gate)
	return g
}

var stranger = netip.MustParseAddrPort("192.0.2.66:4444")

// send decides on a datagram. Every datagram that is decided on becomes exactly
// one event for each grant or refusal, or none for a part of a sequence and for
// what closes.
func (g *guard) send(from netip.AddrPort, payload []byte) error {
	g.t.Helper()
	g.mu.Lock()
	before := len(g.events)
	g.mu.Unlock()
	err := g.Decide(context.Background(), &Packet{At: time.Now(), From: from, Protocol: knockcore.UDP, Payload: payload})
	g.mu.Lock()
	defer g.mu.Unlock()
	refused := 0
	for _, e := range g.events[before:] {
		if e.Kind == knockcore.EventRefused {
			refused++
			if e.Source != from.Addr() || e.Method == knockcore.MethodNone || knockcore.ReasonOf(e.Err) != knockcore.ReasonOf(err) {
				g.t.Errorf("refusal %+v, but %v from %v", e, err, from)
			}
		}
	}
	if want := 0; err != nil {
		want = 1
		if refused != want {
			g.t.Errorf("%d refusals for %v, want one", refused, err)
		}
	} else if refused != 0 {
		g.t.Error("admitted and refused")
	}
	return err
}

// granted lists the grants made since the last call.
func (g *guard) granted() []*knockcore.Grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	var grants []*knockcore.Grant
	for _, e := range g.events {
		if e.Kind == knockcore.EventGranted {
			grants = append(grants, e.Grant)
		}
	}
	g.events = nil
	return grants
}

func (g *guard) setNow(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = now
}

func secret(text string) knockcore.Secret { return knockcore.NewSecret([]byte(text)) }

func credential(c *knockcore.Client) *knockcore.Credential {
	return &knockcore.Credential{Client: c, Secret: c.Secrets[0], MAC: knockcore.NewMAC(c.Secrets[0].Bytes())}
}

// alice may reach ssh and web, by every method.
func alice() *knockcore.Client {
	return &knockcore.Client{
		ID: "alice", Services: []string{"ssh", "web"},
		Secrets: []knockcore.Secret{secret("the libknock secret of alice")},
		Pyknock: []knockcore.Secret{secret("the pyknock key of alice")},
		Fwknop:  []knockcore.FwknopKeys{{Encryption: secret("a fwknop key of alice"), HMAC: secret("the HMAC key of alice")}},
	}
}

func services() []*knockcore.Service {
	return []*knockcore.Service{service("ssh", "tcp/22"), service("web", "tcp/443", "udp/443"), service("db", "tcp/5432")}
}

func frame(t testing.TB, c *knockcore.Client, d wire.Datagram) []byte {
	t.Helper()
	if d.Method == knockcore.MethodNone {
		d.Method = knockcore.MethodUDP
	}
	b, err := d.Seal(credential(c))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pyknockOf(t testing.TB, c *knockcore.Client, p wire.Pyknock) []byte {
	t.Helper()
	b, err := p.Seal(c.Pyknock[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fwknopOf(t testing.TB, c *knockcore.Client, f wire.Fwknop) []byte {
	t.Helper()
	if f.User == "" {
		f.User = "alice"
	}
	b, err := f.Seal(c.Fwknop[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ports(t testing.TB, list ...string) (ranges []knockcore.PortRange) {
	t.Helper()
	for _, p := range list {
		r, err := knockcore.ParsePortRange(p)
		if err != nil {
			t.Fatal(err)
		}
		ranges = append(ranges, r)
	}
	return ranges
}
