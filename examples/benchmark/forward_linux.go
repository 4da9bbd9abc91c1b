// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/nft"
)

// forward measures what routers forward to a gated port: with many windows open, with
// one, with no gate but the tracking of connections that a gate needs, and with
// nothing; that twice, so that it shows what is noise.
func forward(ctx context.Context, o options, r *report) error {
	if err := need("ip", "nft", "iperf3", "sysctl"); err != nil {
		return err
	}
	many := o.some(100_000)
	var streams, packets []subject
	for _, c := range []struct {
		name    string
		windows int // 0 for no gate
		cut     bool
		tracks  bool
		goals   map[int]float64
	}{
		{name: fmt.Sprintf("drain, %d windows", many), windows: many},
		{name: "drain, 1 window", windows: 1, goals: map[int]float64{0: 0.98}},
		{name: fmt.Sprintf("cut (every packet is looked up), %d windows", many), windows: many, cut: true},
		{name: "no gate, connections are tracked", tracks: true},
		{name: "no gate"},
		{name: "no gate, another router"},
	} {
		l, hosts, err := routed(ctx)
		if l != nil {
			defer l.close()
		}
		if err != nil {
			return err
		}
		if c.windows > 0 {
			stop, err := openGate(ctx, hosts.router, c.cut, c.windows)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			l.ends = append(l.ends, stop)
		}
		if c.tracks {
			if err := l.feed("table inet t { chain c { type filter hook forward priority 0; ct state established accept; }; }", "ip", "netns", "exec", hosts.router, "nft", "-f", "-"); err != nil {
				return err
			}
		}
		flow, err := hosts.flow()
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		l.ends = append(l.ends, flow.close)
		streams = append(streams, subject{c.name, c.goals, func(ctx context.Context) ([]float64, error) {
			rate, err := transfer(ctx, hosts.client)
			return []float64{rate / 1e9}, err
		}})
		packets = append(packets, subject{c.name, c.goals, func(ctx context.Context) ([]float64, error) {
			rate, err := flow.pour(ctx, o.lasting(300*time.Millisecond))
			return []float64{rate}, err
		}})
	}
	if err := r.compare(ctx, 3*o.rounds, "64-byte packets of one flow, with one core", []quantity{{unit: "/s"}}, packets...); err != nil {
		return err
	}
	return r.compare(ctx, 2*o.rounds, "one stream through a router", []quantity{{unit: "Gbit/s"}}, streams...)
}

// hosts are the names of the namespaces of a client, a router and a server.
type hosts struct{ client, router, server string }

// flow is a client's UDP flow to a server that answers its first packet, after which
// it counts as established, and takes in no more.
type flow struct {
	hosts          hosts
	client, server *net.UDPConn
}

// flow begins one.
func (h hosts) flow() (f *flow, err error) {
	f = &flow{hosts: h}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	there := &net.UDPAddr{IP: net.IPv4(198, 51, 100, 2), Port: 5201}
	if err := inside(h.server, func() (err error) { f.server, err = net.ListenUDP("udp4", there); return err }); err != nil {
		return f, err
	}
	if err := inside(h.client, func() (err error) { f.client, err = net.DialUDP("udp4", nil, there); return err }); err != nil {
		return f, err
	}
	for _, conn := range []*net.UDPConn{f.server, f.client} {
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	}
	b := make([]byte, 64)
	if _, err := f.client.Write(b); err != nil {
		return f, err
	}
	n, from, err := f.server.ReadFromUDPAddrPort(b)
	if err != nil {
		return f, err
	}
	if _, err := f.server.WriteToUDPAddrPort(b[:n], from); err != nil {
		return f, err
	}
	_, err = f.client.Read(b)
	_ = f.client.SetDeadline(time.Time{})
	return f, err
}

func (f *flow) close() {
	for _, conn := range []*net.UDPConn{f.server, f.client} {
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// pour sends as fast as one thread can, and tells how many packets a second came out
// of the router: the thread does the router's work as well.
func (f *flow) pour(ctx context.Context, lasting time.Duration) (rate float64, err error) {
	ctx, stop := context.WithTimeout(ctx, lasting)
	defer stop()
	before, err := f.hosts.arrived()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	_, err = pour(ctx, f.client, [][]byte{make([]byte, 64)})
	elapsed := time.Since(begin)
	after, countErr := f.hosts.arrived()
	return float64(after-before) / elapsed.Seconds(), errors.Join(err, countErr)
}

// arrived is how many packets the server's device has received.
func (h hosts) arrived() (packets int64, err error) {
	err = inside(h.server, func() error {
		link, err := exec.Command("ip", "-j", "-s", "link", "show", "dev", "eth0").Output()
		if err != nil {
			return fmt.Errorf("ip link: %w", err)
		}
		var devices []struct {
			Stats struct {
				RX struct{ Packets int64 }
			} `json:"stats64"`
		}
		if err := json.Unmarshal(link, &devices); err != nil || len(devices) != 1 {
			return fmt.Errorf("ip link says %s: %w", link, err)
		}
		packets = devices[0].Stats.RX.Packets
		return nil
	})
	return packets, err
}

// routed makes a client, a router and a server that runs iperf3.
func routed(ctx context.Context) (l *lab, h hosts, err error) {
	if l, err = newLab(ctx); err != nil {
		return nil, h, err
	}
	for _, s := range []struct {
		space *string
		name  string
	}{{&h.client, "client"}, {&h.router, "router"}, {&h.server, "server"}} {
		if *s.space, err = l.space(s.name); err != nil {
			return l, h, err
		}
	}
	var log string
	for _, step := range []func() error{
		func() error { return l.link(h.router, "eth0", "192.0.2.1/24", h.client, "eth0", "192.0.2.2/24") },
		func() error { return l.link(h.router, "eth1", "198.51.100.1/24", h.server, "eth0", "198.51.100.2/24") },
		func() error { return l.in(h.client, "ip", "route", "add", "default", "via", "192.0.2.1") },
		func() error { return l.in(h.server, "ip", "route", "add", "default", "via", "198.51.100.1") },
		func() error { return l.in(h.router, "sysctl", "-qw", "net.ipv4.ip_forward=1") },
		func() (err error) { log, err = l.start(h.server, "iperf3", "-s", "--forceflush"); return err },
		func() error { return l.await(log, "Server listening") },
	} {
		if err := step(); err != nil {
			return l, h, err
		}
	}
	return l, h, nil
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
		Name: "bench", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 5201, High: 5201}, {Protocol: knockcore.UDP, Low: 5201, High: 5201}},
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
