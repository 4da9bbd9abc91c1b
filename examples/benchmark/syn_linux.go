// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"slices"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// syns recognises SYN knocks in this process, by number of clients.
func syns(ctx context.Context, o options, r *report) error {
	now := time.Now()
	var known, strange []subject
	for _, n := range slices.Backward(crowd) {
		ring, err := knockcore.NewKeyring(clientsOf(n))
		if err != nil {
			return err
		}
		index, err := wire.NewSYNIndex(wire.SYNIndexConfig{
			Keyring: ring, Methods: knockcore.NewMethodSet(knockcore.MethodTCPSYN, knockcore.MethodTCPSYNSeq), Ports: []uint16{22},
		}, now)
		if err != nil {
			return err
		}
		tags := make([]wire.SYNFields, n)
		for i, cred := range ring.Credentials() {
			tags[i] = wire.SYNTag(&cred, 22, wire.SYNSlot(now.Unix(), wire.DefaultSYNSlot))
		}
		recognise := func(change uint16, want bool) func() {
			i := 0
			return func() {
				tag := tags[i%n]
				tag.Window ^= change
				i++
				if _, ok := index.Lookup(now, 22, tag); ok != want {
					panic("a SYN taken for what it is not")
				}
			}
		}
		name := "clients: " + figure(float64(n))
		known = append(known, subject{name, map[int]float64{1: 0}, o.timed(1, recognise(0, true))})
		strange = append(strange, subject{name, map[int]float64{1: 0}, o.timed(1, recognise(1, false))})
	}
	quantities := []quantity{{unit: "ns", less: true}, {name: "allocations", unit: "", less: true}}
	if err := r.compare(ctx, o.rounds, "SYN of a client", quantities, known...); err != nil {
		return err
	}
	return r.compare(ctx, o.rounds, "SYN of a stranger", quantities, strange...)
}
