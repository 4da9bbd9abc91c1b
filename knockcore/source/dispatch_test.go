// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// names lists the services of grants.
func names(grants []*knockcore.Grant) []string {
	var list []string
	for _, g := range grants {
		list = append(list, g.Service)
	}
	return list
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestEachMethod sends one knock of each method and looks at the grant.
func TestEachMethod(t *testing.T) {
	a := alice()
	now := time.Unix(1_800_000_000, 500_000_000)
	six := netip.MustParseAddrPort("[2001:db8::7]:5000")
	for name, c := range map[string]struct {
		from     netip.AddrPort
		payload  []byte
		services []string
		prefix   string
		length   time.Duration
	}{
		"udp":           {stranger, frame(t, a, wire.Datagram{Port: 22, Time: now.UnixMilli()}), []string{"ssh"}, "192.0.2.66/32", 30 * time.Second},
		"udp over IPv6": {six, frame(t, a, wire.Datagram{Port: 443, Time: now.UnixMilli()}), []string{"web"}, "2001:db8::7/128", 30 * time.Second},
		"udp-passive":   {stranger, frame(t, a, wire.Datagram{Method: knockcore.MethodUDPPassive, Port: 22, Time: now.UnixMilli()}), []string{"ssh"}, "192.0.2.66/32", 30 * time.Second},
		"pyknock":       {stranger, pyknockOf(t, a, wire.Pyknock{Addr: stranger.Addr(), Time: wire.PyknockTime(now)}), []string{"ssh", "web"}, "192.0.2.66/32", 30 * time.Second},
		"pyknock over IPv6": {
			six, pyknockOf(t, a, wire.Pyknock{Addr: six.Addr(), Family: 30, Time: wire.PyknockTime(now)}),
			[]string{"ssh", "web"},
			"2001:db8::7/128", 30 * time.Second,
		},
		"fwknop": {
			stranger, fwknopOf(t, a, wire.Fwknop{Type: wire.FwknopAccess, Allow: stranger.Addr(), Ports: ports(t, "tcp/22"), Time: now.Unix()}),
			[]string{"ssh"},
			"192.0.2.66/32", 30 * time.Second,
		},
		"fwknop for its source, for a minute": {
			stranger, fwknopOf(t, a, wire.Fwknop{
				Type: wire.FwknopAccessTimeout, Allow: netip.IPv4Unspecified(), Ports: ports(t, "udp/443", "tcp/22"), Time: now.Unix(), Timeout: time.Minute,
			}),
			[]string{"web", "ssh"},
			"192.0.2.66/32", time.Minute,
		},
		"fwknop over IPv6": {
			six, fwknopOf(t, a, wire.Fwknop{Type: wire.FwknopAccess, Allow: netip.IPv4Unspecified(), Ports: ports(t, "tcp/22"), Time: now.Unix()}),
			[]string{"ssh"},
			"2001:db8::7/128", 30 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuard(t, setup{clients: []*knockcore.Client{a}, services: services(), now: now})
			if err := g.send(c.from, c.payload); err != nil {
				t.Fatal(err)
			}
			grants := g.granted()
			if !slices.Equal(names(grants), c.services) {
				t.Fatalf("opened %v, want %v", names(grants), c.services)
			}
			for _, grant := range grants {
				if grant.Prefix.String() != c.prefix || grant.Expires.Sub(grant.Made) != c.length || grant.Client != "alice" || grant.Source != c.from.Addr() {
					t.Errorf("grant %+v, want %s for %v", grant, c.prefix, c.length)
				}
			}
			if err := g.send(c.from, c.payload); !errors.Is(err, knockcore.ReasonReplay) {
				t.Errorf("a replay: %v", err)
			}
			tampered := bytes.Clone(c.payload)
			tampered[len(tampered)-1] ^= 1
			if err := g.send(c.from, tampered); err == nil {
				t.Error("a tampered one was taken")
			}
			for _, longer := range [][]byte{append(bytes.Clone(c.payload), 0), append(bytes.Clone(c.payload), '='), append(bytes.Clone(c.payload), '\n'), c.payload[:len(c.payload)-1]} {
				if err := g.send(c.from, longer); err == nil {
					t.Error("a re-encoded one was taken")
				}
			}
			if len(g.granted()) > 0 {
				t.Error("something was granted")
			}
		})
	}
}

func TestRemoteKnocks(t *testing.T) {
	a := alice()
	a.RemoteBits4, a.RemoteBits6 = 32, 128
	g := newGuard(t, setup{clients: []*knockcore.Client{a}, services: services()})
	for _, to := range []string{"198.51.100.7", "2001:db8::1234"} {
		if err := g.send(stranger, pyknockOf(t, a, wire.Pyknock{Addr: addr(to), Time: wire.PyknockTime(g.now)})); err != nil {
			t.Fatal(err)
		}
		for _, grant := range g.granted() {
			if grant.Prefix != knockcore.AddrPrefix(addr(to)) || grant.Source != stranger.Addr() {
				t.Errorf("grant for %v of %v", grant.Prefix, grant.Source)
			}
		}
	}
}

func TestPyknockCloses(t *testing.T) {
	a := alice()
	g := newGuard(t, setup{clients: []*knockcore.Client{a}, services: services(), dispatch: DispatchConfig{PyknockServices: []string{"web"}}})
	open := func(d time.Duration) []byte {
		return pyknockOf(t, a, wire.Pyknock{Addr: stranger.Addr(), Time: wire.PyknockTime(g.now.Add(d))})
	}
	first := open(0)
	if err := g.send(stranger, first); err != nil {
		t.Fatal(err)
	}
	if got := names(g.granted()); !slices.Equal(got, []string{"web"}) {
		t.Fatalf("opened %v, want the configured service", got)
	}
	other := netip.MustParseAddrPort("192.0.2.67:1")
	shut := pyknockOf(t, a, wire.Pyknock{Close: true, Addr: stranger.Addr(), Time: wire.PyknockTime(g.now)})
	if err := g.send(other, shut); !errors.Is(err, knockcore.ReasonForbidden) || g.gate.State().Len() != 1 {
		t.Fatalf("closed from another address: %v", err)
	}
	if err := g.send(stranger, shut); err != nil || g.gate.State().Len() != 0 {
		t.Fatalf("closing: %v, %d grants stand", err, g.gate.State().Len())
	}
	if err := g.send(stranger, first); !errors.Is(err, knockcore.ReasonReplay) || g.gate.State().Len() != 0 {
		t.Errorf("the captured open after the close: %v", err)
	}
}

func TestSequences(t *testing.T) {
	a := alice()
	part := func(g *guard, id byte, i int, session []byte) []byte {
		return frame(t, a, wire.Datagram{
			Method: knockcore.MethodUDPSeq, Port: 22, Time: g.now.UnixMilli(), Sequence: true,
			SequenceID: [16]byte{id}, Index: uint8(i), Total: 3, Session: session,
		})
	}
	g := newGuard(t, setup{clients: []*knockcore.Client{a}, services: services()})
	session := bytes.Repeat([]byte{7}, 16)
	var first []byte
	for n, i := range []int{2, 0, 1} {
		b := part(g, 1, i, session)
		if first == nil {
			first = b
		}
		if err := g.send(stranger, b); err != nil {
			t.Fatal(err)
		}
		if got := len(g.granted()); got != n/2 {
			t.Fatalf("%d grants after part %d", got, n)
		}
	}
	if err := g.send(stranger, first); !errors.Is(err, knockcore.ReasonReplay) {
		t.Errorf("a part once more: %v", err)
	}
	if err := g.send(stranger, part(g, 1, 0, session)); !errors.Is(err, knockcore.ReasonReplay) {
		t.Errorf("a new part of what is over: %v", err)
	}
	// Parts are spread over two addresses: neither knocks.
	for i := range 3 {
		from := stranger
		if i == 1 {
			from = netip.MustParseAddrPort("192.0.2.67:1")
		}
		if err := g.send(from, part(g, 2, i, nil)); err != nil {
			t.Fatal(err)
		}
	}
	// A part for what the client may not reach is refused by itself.
	b := frame(t, a, wire.Datagram{
		Method: knockcore.MethodUDPSeq, Port: 5432, Time: g.now.UnixMilli(), Sequence: true, SequenceID: [16]byte{3}, Total: 3,
	})
	if err := g.send(stranger, b); !errors.Is(err, knockcore.ReasonForbidden) {
		t.Errorf("a part for another service: %v", err)
	}
	if len(g.granted()) > 0 {
		t.Error("something was granted")
	}
}

func TestSessions(t *testing.T) {
	a := alice()
	guarded := service("ssh", "tcp/22")
	guarded.RequireSession = true
	g := newGuard(t, setup{clients: []*knockcore.Client{a}, services: []*knockcore.Service{guarded, service("web", "tcp/443")}})
	if err := g.send(stranger, frame(t, a, wire.Datagram{Port: 22, Time: g.now.UnixMilli()})); !errors.Is(err, knockcore.ReasonNoSession) {
		t.Errorf("without a session: %v", err)
	}
	session := bytes.Repeat([]byte{1}, 16)
	if err := g.send(stranger, frame(t, a, wire.Datagram{Port: 22, Time: g.now.UnixMilli(), Session: session})); err != nil {
		t.Fatal(err)
	}
	grants := g.granted()
	if len(grants) != 1 || grants[0].Scope != knockcore.ScopeSession || !bytes.Equal(grants[0].Session, session) {
		t.Errorf("grants %+v", grants)
	}
}

func TestClientsChange(t *testing.T) {
	a := alice()
	b := &knockcore.Client{
		ID: "bob", AllServices: true, Pyknock: []knockcore.Secret{secret("the pyknock key of bob")},
		Fwknop: []knockcore.FwknopKeys{{Encryption: secret("a fwknop key of bob"), HMAC: secret("the HMAC key of bob")}},
	}
	g := newGuard(t, setup{clients: []*knockcore.Client{a}, services: services()})
	of := func(c *knockcore.Client) [][]byte {
		return [][]byte{
			pyknockOf(t, c, wire.Pyknock{Addr: stranger.Addr(), Time: wire.PyknockTime(g.now)}),
			fwknopOf(t, c, wire.Fwknop{Type: 1, Allow: stranger.Addr(), Ports: ports(t, "tcp/22"), Time: g.now.Unix()}),
		}
	}
	for _, payload := range of(b) {
		if err := g.send(stranger, payload); !errors.Is(err, knockcore.ReasonUnknownClient) {
			t.Errorf("bob, too early: %v", err)
		}
	}
	ring, err := knockcore.NewKeyring([]*knockcore.Client{b})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.gate.SetKeyring(t.Context(), ring); err != nil {
		t.Fatal(err)
	}
	for _, payload := range of(b) {
		if err := g.send(stranger, payload); err != nil {
			t.Errorf("bob: %v", err)
		}
	}
	for _, payload := range of(a) {
		if err := g.send(stranger, payload); !errors.Is(err, knockcore.ReasonUnknownClient) {
			t.Errorf("alice, too late: %v", err)
		}
	}
}
