// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/nft"
)

// forward measures what routers forward to a gated port, with many windows open,
// with one, and without a gate: that twice, so that it shows what is noise.
func forward(ctx context.Context, o options, r *report) error {
	if err := need("ip", "nft", "iperf3", "sysctl"); err != nil {
		return err
	}
	many := o.some(100_000)
	var subjects []subject
	for _, c := range []struct {
		name    string
		windows int // 0 for no gate
		cut     bool
		goals   map[int]float64
	}{
		{name: fmt.Sprintf("drain, %d windows", many), windows: many},
		{name: "drain, 1 window", windows: 1},
		{name: fmt.Sprintf("cut (every packet is looked up), %d windows", many), windows: many, cut: true},
		{name: "cut, 1 window", windows: 1, cut: true},
		{name: "no gate", goals: map[int]float64{0: 0.98}},
		{name: "no gate, another router", goals: map[int]float64{0: 0.98}},
	} {
		l, client, router, err := routed(ctx)
		if l != nil {
			defer l.close()
		}
		if err != nil {
			return err
		}
		if c.windows > 0 {
			stop, err := openGate(ctx, router, c.cut, c.windows)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			l.ends = append(l.ends, stop)
		}
		subjects = append(subjects, subject{c.name, c.goals, func(ctx context.Context) ([]float64, error) {
			rate, err := transfer(ctx, client)
			return []float64{rate / 1e9}, err
		}})
	}
	return r.compare(ctx, 2*o.rounds, "one stream through a router", []quantity{{unit: "Gbit/s"}}, subjects...)
}

// routed is a client, a router and a server that runs iperf3.
func routed(ctx context.Context) (l *lab, client, router string, err error) {
	if l, err = newLab(ctx); err != nil {
		return nil, "", "", err
	}
	var server string
	for _, s := range []struct {
		space *string
		name  string
	}{{&client, "client"}, {&router, "router"}, {&server, "server"}} {
		if *s.space, err = l.space(s.name); err != nil {
			return l, "", "", err
		}
	}
	var log string
	for _, step := range []func() error{
		func() error { return l.link(router, "eth0", "192.0.2.1/24", client, "eth0", "192.0.2.2/24") },
		func() error { return l.link(router, "eth1", "198.51.100.1/24", server, "eth0", "198.51.100.2/24") },
		func() error { return l.in(client, "ip", "route", "add", "default", "via", "192.0.2.1") },
		func() error { return l.in(server, "ip", "route", "add", "default", "via", "198.51.100.1") },
		func() error { return l.in(router, "sysctl", "-qw", "net.ipv4.ip_forward=1") },
		func() (err error) { log, err = l.start(server, "iperf3", "-s", "--forceflush"); return err },
		func() error { return l.await(log, "Server listening") },
	} {
		if err := step(); err != nil {
			return l, "", "", err
		}
	}
	return l, client, router, nil
}

// openGate gates iperf3's port behind the router and opens windows; the client's
// is the last of them.
func openGate(ctx context.Context, router string, cut bool, windows int) (stop func(), err error) {
	netns, err := unix.Open("/run/netns/"+router, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	engine, err := nft.New(nft.Config{NetNS: netns})
	if err != nil {
		_ = unix.Close(netns)
		return nil, err
	}
	stop = func() {
		_ = engine.Stop(context.Background(), knockcore.ExitRemove)
		_ = unix.Close(netns)
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	service := &knockcore.Service{
		Name: "bench", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 5201, High: 5201}},
		Destinations: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, CutOnExpire: cut,
	}
	if err := engine.Setup(ctx, []*knockcore.Service{service}); err != nil {
		return nil, err
	}
	list := windowsFor(0, windows-1)
	mine := knockcore.Window{Prefix: netip.MustParsePrefix("192.0.2.2/32"), Service: "bench", Expires: time.Now().Add(time.Hour)}
	return stop, engine.Open(ctx, append(list, mine)...)
}

// windowsFor makes windows for n addresses from the i-th on.
func windowsFor(i, n int) []knockcore.Window {
	list := make([]knockcore.Window, n)
	expires := time.Now().Add(time.Hour)
	for j := range list {
		list[j] = knockcore.Window{Prefix: knockcore.AddrPrefix(address(i + j)), Service: "bench", Expires: expires}
	}
	return list
}

// address is the i-th of 10.0.0.0/8.
func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// transfer is how many bits a second get through.
func transfer(ctx context.Context, client string) (float64, error) {
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", client, "iperf3", "-c", "198.51.100.2", "-J", "-t", "1")
	text, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("iperf3: %w: %s", err, text)
	}
	var result struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	err = json.Unmarshal(text, &result)
	return result.End.Received.Rate, err
}
