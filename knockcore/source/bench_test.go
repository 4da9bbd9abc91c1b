// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// crowd is so many clients, with keys for every method; the last one knocks.
func crowd(n int) []*knockcore.Client {
	clients := make([]*knockcore.Client, n)
	for i := range clients {
		c := alice()
		c.ID, c.Services = fmt.Sprintf("c%05d", i), []string{"ssh"}
		c.Secrets[0] = secret("the libknock secret of " + c.ID)
		c.Pyknock[0] = secret("the pyknock key of " + c.ID)
		c.Fwknop[0] = knockcore.FwknopKeys{Encryption: secret("fwknop key of " + c.ID), HMAC: secret("HMAC key of " + c.ID)}
		clients[i] = c
	}
	return clients
}

// benchGate is a gatekeeper with nothing to observe.
func benchGate(b *testing.B, clients []*knockcore.Client, limits *knockcore.Limiter) *knockcore.Gatekeeper {
	b.Helper()
	ring, err := knockcore.NewKeyring(clients)
	if err != nil {
		b.Fatal(err)
	}
	gate, err := knockcore.NewGatekeeper(
		knockcore.Config{Keyring: ring, Services: services()[:1], Limits: limits},
		knockcore.NewState(knockcore.NewMemoryStore(1<<24), 0))
	if err != nil {
		b.Fatal(err)
	}
	return gate
}

var benchStart = time.Now()

// benchKnock makes the knock of a method.
func benchKnock(b *testing.B, method knockcore.Method, c *knockcore.Client, i int) []byte {
	b.Helper()
	now := time.Now()
	switch method {
	case knockcore.MethodPyknock:
		// The knocks of one client differ by their times.
		return pyknockOf(b, c, wire.Pyknock{Addr: stranger.Addr(), Time: wire.PyknockTime(benchStart) - float64(i)/1e5})
	case knockcore.MethodFwknop:
		return fwknopOf(b, c, wire.Fwknop{
			Type: wire.FwknopAccess, Allow: netip.IPv4Unspecified(), Time: now.Unix(), Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 22, High: 22}},
		})
	default:
		return frame(b, c, wire.Datagram{Method: method, Port: 22, Time: now.UnixMilli()})
	}
}

// BenchmarkDispatch is what a worker does with one datagram: verify it, and for a
// good one spend its nonce and renew the grant.
func BenchmarkDispatch(b *testing.B) {
	for _, method := range []knockcore.Method{knockcore.MethodUDP, knockcore.MethodPyknock, knockcore.MethodFwknop} {
		for _, n := range []int{1, 100, 10_000} {
			clients := crowd(n)
			last := clients[n-1]
			b.Run(fmt.Sprintf("%v/clients=%d/accept", method, n), func(b *testing.B) {
				d := NewDispatcher(DispatchConfig{Methods: allDatagrams}, benchGate(b, clients, nil))
				p := &Packet{From: stranger}
				b.ReportAllocs()
				for i := 0; b.Loop(); {
					b.StopTimer()
					batch := make([][]byte, 256)
					for j := range batch {
						batch[j] = benchKnock(b, method, last, i+j)
					}
					p.At = time.Now()
					b.StartTimer()
					for _, p.Payload = range batch {
						if err := d.Decide(context.Background(), p); err != nil {
							b.Fatal(err)
						}
						if i++; !b.Loop() {
							return
						}
					}
				}
			})
			b.Run(fmt.Sprintf("%v/clients=%d/reject", method, n), func(b *testing.B) {
				foreign := alice()
				foreign.Secrets[0], foreign.Pyknock[0] = secret("the secret of nobody"), secret("the pyknock key of nobody")
				foreign.Fwknop[0].HMAC = secret("the HMAC key of nobody")
				d := NewDispatcher(DispatchConfig{Methods: allDatagrams}, benchGate(b, clients, knockcore.NewLimiter(knockcore.LimitConfig{})))
				p := &Packet{At: time.Now(), From: stranger, Payload: benchKnock(b, method, foreign, 0)}
				b.ReportAllocs()
				for b.Loop() {
					if err := d.Decide(context.Background(), p); err == nil {
						b.Fatal("taken")
					}
				}
			})
		}
	}
	b.Run("junk", func(b *testing.B) {
		d := NewDispatcher(DispatchConfig{Methods: allDatagrams}, benchGate(b, crowd(100), knockcore.NewLimiter(knockcore.LimitConfig{})))
		p := &Packet{At: time.Now(), From: stranger, Payload: bytes.Repeat([]byte("junk"), 50)}
		b.ReportAllocs()
		for b.Loop() {
			if err := d.Decide(context.Background(), p); err == nil {
				b.Fatal("taken")
			}
		}
	})
}

// BenchmarkQueue is what the reader does with one datagram, while a worker takes
// it out again.
func BenchmarkQueue(b *testing.B) {
	q := NewQueue(QueueConfig{Limits: knockcore.NewLimiter(knockcore.LimitConfig{}), Handle: func(context.Context, *Packet) {}})
	s := NewSwitch(nil)
	defer s.Attach(q)()
	p := &Packet{At: time.Now(), Payload: make([]byte, 114)}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.From = netip.AddrPortFrom(someAddr(i&0xffff), 1)
		s.Sink(p)
	}
	q.Close(context.Background())
}

// junkKnock has the structure of a libknock frame and is nobody's.
func junkKnock() []byte {
	junk := bytes.Repeat([]byte{0x5a}, 114)
	binary.BigEndian.PutUint16(junk[24:], 114-28)
	junk[26], junk[27] = 2, 0
	return junk
}
