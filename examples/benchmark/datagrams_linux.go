// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// datagrams decodes, verifies and decides on knocks by UDP: in this process, and
// over a veth pair.
func datagrams(ctx context.Context, o options, r *report) error {
	for _, n := range []int{1, 100} {
		if err := decoding(ctx, o, r, n); err != nil {
			return err
		}
	}
	if err := mayUseNamespaces(); err != nil {
		r.note("over veth: %v", err)
		return nil
	}
	for _, n := range []int{1, 100} {
		if err := deciding(ctx, o, r, n); err != nil {
			return err
		}
	}
	return flooded(ctx, o, r)
}

// clientsOf makes n clients.
func clientsOf(n int) []*knockcore.Client {
	clients := make([]*knockcore.Client, n)
	for i := range clients {
		clients[i] = benchClient(fmt.Sprintf("c%05d", i))
	}
	return clients
}

// sealed makes n knocks of one client, each with another nonce.
func sealed(cred *knockcore.Credential, n int) ([][]byte, error) {
	all := make([][]byte, n)
	for i := range all {
		d := wire.Datagram{Method: knockcore.MethodUDP, Port: 22, Time: time.Now().UnixMilli()}
		var err error
		if all[i], err = d.Seal(cred); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// decoding is one goroutine that decodes and verifies.
func decoding(ctx context.Context, o options, r *report, n int) error {
	ring, err := knockcore.NewKeyring(clientsOf(n))
	if err != nil {
		return err
	}
	known := ring.Credentials()[n-1]
	stranger := knockcore.Credential{Client: known.Client, Secret: knockcore.NewSecret([]byte("nobody has this secret"))}
	stranger.MAC = knockcore.NewMAC(stranger.Secret.Bytes())
	config := &wire.DatagramConfig{Methods: knockcore.NewMethodSet(knockcore.MethodUDP), Ports: []uint16{22}}
	scratch := knockcore.NewMACScratch()
	many := o.some(20_000)
	home := netip.MustParseAddr("192.0.2.1")
	ring.Remember(home, &ring.Credentials()[n-1])
	perSecond := func(source netip.Addr, cred *knockcore.Credential, good bool) (func(context.Context) ([]float64, error), error) {
		knocks, err := sealed(cred, 64)
		return func(context.Context) ([]float64, error) {
			begin := time.Now()
			for i := range many {
				if _, _, err := config.OpenFrom(source, ring, scratch, knocks[i%len(knocks)]); (err == nil) != good {
					return nil, fmt.Errorf("a knock that is good (%v) was answered with %v", good, err)
				}
			}
			return []float64{float64(many) / time.Since(begin).Seconds()}, nil
		}, err
	}
	familiar, err := perSecond(home, &known, true)
	if err != nil {
		return err
	}
	good, err := perSecond(netip.Addr{}, &known, true)
	if err != nil {
		return err
	}
	bad, err := perSecond(netip.Addr{}, &stranger, false)
	if err != nil {
		return err
	}
	return r.compare(ctx, o.rounds, fmt.Sprintf("decoded and verified on one core, clients: %d", n), []quantity{{unit: "/s"}},
		subject{"good knocks, from an address that the client was admitted from lately", map[int]float64{0: 300_000}, familiar},
		subject{"good knocks, from other addresses", nil, good}, subject{"a stranger's", nil, bad})
}

// deciding is from socket to decision over veth, as Caddy's udp source does it. All
// of it, the sender too, is this process.
func deciding(ctx context.Context, o options, r *report, n int) error {
	perSecond := func(good bool) func(context.Context) ([]float64, error) {
		return func(ctx context.Context) ([]float64, error) {
			rx, err := newReceiver(ctx, n)
			if err != nil {
				return nil, err
			}
			defer rx.close()
			cred := rx.last
			if !good {
				cred.Secret = knockcore.NewSecret([]byte("nobody has this secret"))
				cred.MAC = knockcore.NewMAC(cred.Secret.Bytes())
			}
			knocks, err := sealed(&cred, o.some(20_000))
			if err != nil {
				return nil, err
			}
			conn, err := rx.sender("192.0.2.2")
			if err != nil {
				return nil, err
			}
			defer conn.Close()
			ctx, stop := context.WithTimeout(ctx, o.lasting(500*time.Millisecond))
			defer stop()
			begin := time.Now()
			sent, err := pour(ctx, conn, knocks)
			elapsed := time.Since(begin).Seconds()
			decided := rx.granted.Load() + rx.refused.Load()
			// When it is run for a moment only, none may have been decided yet.
			for late := time.Now().Add(20 * time.Second); good && rx.granted.Load() == 0 && time.Now().Before(late); {
				time.Sleep(time.Millisecond)
			}
			if good == (rx.granted.Load() == 0) {
				err = errors.Join(err, fmt.Errorf("%d granted, %d refused", rx.granted.Load(), rx.refused.Load()))
			}
			return []float64{float64(decided) / elapsed, float64(sent) / elapsed}, err
		}
	}
	// Good knocks come again and again: the first time they are granted, later refused
	// as replayed, after the same verification.
	return r.compare(ctx, o.rounds, fmt.Sprintf("socket to decision, clients: %d", n), []quantity{{unit: "/s"}, {name: "sent at the same time", unit: "/s"}},
		subject{"good knocks", map[int]float64{0: 100_000}, perSecond(true)}, subject{"a stranger's", nil, perSecond(false)})
}
