// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

var bothSYN = knockcore.NewMethodSet(knockcore.MethodTCPSYN, knockcore.MethodTCPSYNSeq)

// synGuard accepts SYN knocks in a slot that begins at the guard's clock.
func synGuard(t testing.TB, change func(*setup)) *guard {
	t.Helper()
	sequences, err := wire.NewSYNSequences(wire.SYNSequenceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	s := setup{
		clients: []*knockcore.Client{alice()}, services: services(), now: time.Unix(60_000_000, 0),
		dispatch: DispatchConfig{Methods: bothSYN, SYNSequences: sequences},
	}
	if change != nil {
		change(&s)
	}
	return newGuard(t, s)
}

func (g *guard) slot() int64 { return wire.SYNSlot(g.gate.Now().Unix(), wire.DefaultSYNSlot) }

func synPacket(port uint16, f wire.SYNFields) *Packet {
	return &Packet{
		At: time.Now(), From: stranger, To: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port),
		Protocol: knockcore.TCP, TCPFlags: SYN, TCP: f, HasTSval: true,
	}
}

// synReason decides on a SYN and returns the reason why it is refused, 0 if not.
func (g *guard) synReason(p *Packet) knockcore.Reason {
	g.t.Helper()
	if err := g.Decide(context.Background(), p); err != nil {
		return knockcore.ReasonOf(err)
	}
	return 0
}

// observed is how many refusals the observer heard of, and how many grants there
// were, since the last call.
func (g *guard) observed() (refused, granted int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		switch e.Kind {
		case knockcore.EventRefused:
			refused++
		case knockcore.EventGranted:
			granted++
		}
	}
	g.events = nil
	return refused, granted
}

func TestSYN(t *testing.T) {
	g := synGuard(t, nil)
	tag := func(delta int64) wire.SYNFields { return wire.SYNTag(credential(alice()), 22, g.slot()+delta) }
	for name, p := range map[string]*Packet{
		"too early": synPacket(22, tag(2)), "too late": synPacket(22, tag(-2)), "other port": synPacket(443, tag(0)),
		"no tag": synPacket(22, wire.SYNFields{Seq: 1, Window: 2, TSval: 3}),
	} {
		if got := g.synReason(p); got != knockcore.ReasonUnknownClient {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, change := range map[string]func(*Packet){
		"no timestamp": func(p *Packet) { p.HasTSval = false },
		"with ACK":     func(p *Packet) { p.TCPFlags |= ACK },
		"with RST":     func(p *Packet) { p.TCPFlags |= RST },
		"no SYN":       func(p *Packet) { p.TCPFlags = 0 },
	} {
		p := synPacket(22, tag(0))
		change(p)
		if got := g.synReason(p); got != knockcore.ReasonUnknownClient {
			t.Errorf("%s: %v", name, got)
		}
	}
	if refused, granted := g.observed(); refused != 0 || granted != 0 {
		t.Errorf("strangers: %d refusals and %d grants", refused, granted)
	}
	for _, delta := range []int64{0, -1, 1} {
		p := synPacket(22, tag(delta))
		p.TCPFlags |= FIN | PSH | URG // libknock does not mind
		if got := g.synReason(p); got != 0 {
			t.Errorf("slot %+d: %v", delta, got)
		}
		if got := g.synReason(p); got != knockcore.ReasonReplay {
			t.Errorf("slot %+d again: %v", delta, got)
		}
	}
	if refused, granted := g.observed(); refused != 3 || granted != 3 {
		t.Errorf("%d refusals, %d grants", refused, granted)
	}
	// A minute later the same is no knock any more, and never was one for others.
	old := synPacket(22, tag(0))
	g.setNow(g.gate.Now().Add(time.Minute))
	g.Prepare()
	if got := g.synReason(old); got != knockcore.ReasonUnknownClient {
		t.Errorf("a minute later: %v", got)
	}
	if got := g.synReason(synPacket(5432, wire.SYNTag(credential(alice()), 5432, g.slot()))); got != knockcore.ReasonForbidden {
		t.Errorf("a service of others: %v", got)
	}
}

func TestSYNSequence(t *testing.T) {
	g := synGuard(t, nil)
	part := func(i uint8, legacy bool) *Packet {
		f, port := wire.SYNSeqTag(credential(alice()), 22, g.slot(), i, legacy)
		return synPacket(port, f)
	}
	// The head of a sequence and a single knock are different things, and neither
	// uses the other up.
	if got := g.synReason(synPacket(22, wire.SYNTag(credential(alice()), 22, g.slot()))); got != 0 {
		t.Fatalf("single: %v", got)
	}
	if _, granted := g.observed(); granted != 1 {
		t.Fatal("the single knock granted nothing")
	}
	if got := g.synReason(part(1, false)); got != knockcore.ReasonMalformed {
		t.Errorf("the middle first: %v", got)
	}
	for i := range uint8(2) {
		if got := g.synReason(part(i, false)); got != 0 {
			t.Errorf("part %d: %v", i, got)
		}
	}
	other := part(2, false)
	other.From = netip.MustParseAddrPort("198.51.100.7:1")
	if got := g.synReason(other); got != knockcore.ReasonMalformed {
		t.Errorf("the end from elsewhere: %v", got)
	}
	if _, granted := g.observed(); granted != 0 {
		t.Error("granted before the last part")
	}
	if got := g.synReason(part(0, false)); got != knockcore.ReasonReplay {
		t.Errorf("the head again: %v", got)
	}
	if got := g.synReason(part(2, false)); got != 0 {
		t.Errorf("the end: %v", got)
	}
	if _, granted := g.observed(); granted != 1 {
		t.Error("the sequence granted nothing")
	}
	for i := range uint8(3) {
		if g.synReason(part(i, false)) == 0 {
			t.Errorf("part %d counts twice", i)
		}
	}
	if got := g.synReason(part(0, true)); got != knockcore.ReasonUnknownClient {
		t.Errorf("the older namespace counts unasked: %v", got)
	}
	g = synGuard(t, func(s *setup) { s.dispatch.SYN.Legacy = true })
	for i := range uint8(3) {
		if got := g.synReason(part(i, true)); got != 0 {
			t.Errorf("legacy part %d: %v", i, got)
		}
	}
	if _, granted := g.observed(); granted != 1 {
		t.Error("the older sequence granted nothing")
	}
}

func TestSYNMethods(t *testing.T) {
	pinned := alice()
	pinned.Methods = knockcore.NewMethodSet(knockcore.MethodTCPSYN)
	g := synGuard(t, func(s *setup) { s.clients[0] = pinned })
	head, port := wire.SYNSeqTag(credential(pinned), 22, g.slot(), 0, false)
	if got := g.synReason(synPacket(port, head)); got != knockcore.ReasonWrongMethod {
		t.Errorf("a method that the client may not use: %v", got)
	}
	g = synGuard(t, func(s *setup) { s.dispatch.Methods = knockcore.NewMethodSet(knockcore.MethodTCPSYN) })
	if got := g.synReason(synPacket(port, head)); got != knockcore.ReasonUnknownClient {
		t.Errorf("a method that is off: %v", got)
	}
	// Datagrams are not for this source, and doors see everything.
	seen := 0
	g = synGuard(t, func(s *setup) {
		s.dispatch.Doors = func(context.Context, *Packet) { seen++ }
		s.dispatch.KnockPorts = ports(t, "udp/62202")
	})
	_ = g.synReason(synPacket(22, wire.SYNFields{}))
	if !synGuard(t, nil).InOrder(synPacket(22, wire.SYNFields{})) {
		t.Error("the parts of a tcp-syn-seq knock, each from a port of its own, may overtake each other")
	}
	p := &Packet{From: stranger, To: netip.MustParseAddrPort("192.0.2.1:7000"), Protocol: knockcore.UDP, Payload: []byte("knock")}
	_ = g.synReason(p)
	if refused, _ := g.observed(); seen != 2 || refused != 0 || !g.InOrder(p) {
		t.Errorf("doors saw %d packets of 2; %d refusals, in order: %v", seen, refused, g.InOrder(p))
	}
}

// BenchmarkSYN decides on SYNs of strangers.
func BenchmarkSYN(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		clients := crowd(n)
		gate := benchGate(b, clients, nil)
		d := NewDispatcher(DispatchConfig{Methods: knockcore.NewMethodSet(knockcore.MethodTCPSYN)}, gate)
		p := synPacket(22, wire.SYNFields{Seq: 1, Window: 2, TSval: 3})
		b.Run(fmt.Sprintf("foreign/clients=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = d.Decide(context.Background(), p)
			}
		})
	}
}
