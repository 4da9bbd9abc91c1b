// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"net"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/nft"
)

// perCall is how many windows are opened at once, as after a restart: of both
// those who are compared.
const perCall = 1000

// windows measures how many windows a second are opened, beside a program that
// does nothing but insert into a set with the same transactions.
func windows(ctx context.Context, o options, r *report) error {
	if err := need("ip", "nft"); err != nil {
		return err
	}
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	ours, err := l.space("ours")
	if err != nil {
		return err
	}
	theirs, err := l.space("bare")
	if err != nil {
		return err
	}
	netns, err := unix.Open("/run/netns/"+ours, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(netns)
	engine, err := nft.New(nft.Config{NetNS: netns})
	if err != nil {
		return err
	}
	defer func() { _ = engine.Stop(context.Background(), knockcore.ExitRemove) }()
	service := &knockcore.Service{Name: "bench", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 22, High: 22}}}
	if err := engine.Setup(ctx, []*knockcore.Service{service}); err != nil {
		return err
	}
	if err := l.feed(plainGate, "ip", "netns", "exec", theirs, "nft", "-f", "-"); err != nil {
		return err
	}
	var conn *nftables.Conn
	if err := inside(theirs, func() (err error) {
		conn, err = nftables.New(nftables.AsLasting())
		return err
	}); err != nil {
		return err
	}
	defer func() { _ = conn.CloseLasting() }()
	set, err := conn.GetSetByName(&nftables.Table{Name: "k", Family: nftables.TableFamilyINet}, "ok")
	if err != nil {
		return err
	}
	n := o.some(10_000)
	persecond := func(open func(from, n int) error) func(context.Context) ([]float64, error) {
		done := 0
		return func(context.Context) ([]float64, error) {
			begin := time.Now()
			for end := done + n; done < end; {
				some := min(perCall, end-done)
				if err := open(done, some); err != nil {
					return nil, err
				}
				done += some
			}
			return []float64{float64(n) / time.Since(begin).Seconds()}, nil
		}
	}
	return r.compare(
		ctx, o.rounds, "opened", []quantity{{unit: "/s"}},
		subject{"nftables engine", map[int]float64{0: 50_000}, persecond(func(from, n int) error {
			return engine.Open(ctx, windowsFor(from, n)...)
		})},
		subject{"bare netlink insert", nil, persecond(func(from, n int) error {
			elements := make([]nftables.SetElement, n)
			for i := range elements {
				elements[i] = nftables.SetElement{Key: net.IP(address(from + i).AsSlice()), Timeout: time.Hour}
			}
			if err := conn.SetAddElements(set, elements); err != nil {
				return err
			}
			return conn.Flush()
		})},
	)
}
