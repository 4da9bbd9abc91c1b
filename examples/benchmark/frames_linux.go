// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// crowd is how many clients there may be.
var crowd = []int{1, 100, 1_000, 10_000}

// frames verifies frames v2 in this process, beside a loop that computes one HMAC
// for each client and does nothing else.
func frames(ctx context.Context, o options, r *report) error {
	quantities := []quantity{{unit: "ns", less: true}, {name: "allocations", unit: "", less: true}}
	for _, n := range crowd {
		clients := clientsOf(n)
		ring, err := knockcore.NewKeyring(clients)
		if err != nil {
			return err
		}
		creds := ring.Credentials()
		frame, err := (&wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: 22, Time: time.Now().UnixMilli(), Bucket: 128}).Seal(&creds[n/2])
		if err != nil {
			return err
		}
		junk := make([]byte, len(frame))
		_, _ = rand.Read(junk) // never fails
		config := &wire.StreamConfig{Methods: knockcore.NewMethodSet(knockcore.MethodEnvelopeV2)}
		from := func(source netip.Addr, b []byte, want wire.State) func() {
			return func() {
				stream := config.NewStream(ring, 22)
				stream.From(source)
				if v := stream.Check(b); v.State != want {
					panic(fmt.Sprintf("a verdict other than expected: %+v", v))
				}
			}
		}
		check := func(b []byte, want wire.State) func() {
			return from(netip.MustParseAddr("192.0.2.2"), b, want)
		}
		// The message of a hint: label, prefix, port.
		message := junk[:48]
		states := make([]hash.Hash, n)
		for i := range states {
			states[i] = hmac.New(sha256.New, clients[i].Secrets[0].Bytes())
		}
		scratch := knockcore.NewMACScratch()
		var sum []byte
		what := "frame v2, clients: " + figure(float64(n))
		if err := r.compare(ctx, o.rounds, what, quantities,
			subject{"rejected", map[int]float64{1: 0}, o.timed(n, check(junk, wire.Foreign))},
			subject{"bare loop, one cached HMAC state each", map[int]float64{0: 1.3}, o.bare(n, func() {
				for i := range creds {
					creds[i].MAC.Sum(scratch, message)
				}
			})},
			subject{"bare loop, crypto/hmac", nil, o.bare(n, func() {
				for _, h := range states {
					h.Reset()
					h.Write(message)
					sum = h.Sum(sum[:0])
				}
			})},
		); err != nil {
			return err
		}
		home := netip.MustParseAddr("192.0.2.1")
		ring.Remember(home, &creds[n/2])
		if err := r.compare(ctx, o.rounds, what, quantities,
			subject{"accepted, from an address that the client was admitted from lately", nil, o.timed(1, from(home, frame, wire.Authentic))},
			subject{"accepted, from another address", nil, o.timed(n, check(frame, wire.Authentic))}); err != nil {
			return err
		}
	}
	ring, err := knockcore.NewKeyring([]*knockcore.Client{benchClient("bench")})
	if err != nil {
		return err
	}
	config := &wire.StreamConfig{Methods: knockcore.NewMethodSet(knockcore.MethodEnvelopeV2)}
	stranger := []byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
	return r.compare(ctx, o.rounds, "foreign stream", quantities, subject{"HTTP", map[int]float64{0: 1000, 1: 0}, o.timed(1, func() {
		stream := config.NewStream(ring, 22)
		if v := stream.Check(stranger); v.State != wire.Foreign {
			panic("HTTP taken for a frame")
		}
	})})
}

// timed measures a function that costs about as much as n HMACs: nanoseconds and
// allocations of one call.
func (o options) timed(n int, f func()) func(context.Context) ([]float64, error) {
	calls := max(1, o.some(400_000)/n)
	return func(context.Context) ([]float64, error) {
		allocations := testing.AllocsPerRun(1, f)
		begin := time.Now()
		for range calls {
			f()
		}
		return []float64{float64(time.Since(begin).Nanoseconds()) / float64(calls), allocations}, nil
	}
}

// bare is timed for what allocates nothing by nature.
func (o options) bare(n int, f func()) func(context.Context) ([]float64, error) {
	measure := o.timed(n, f)
	return func(ctx context.Context) ([]float64, error) {
		v, err := measure(ctx)
		return []float64{v[0], none}, err
	}
}
