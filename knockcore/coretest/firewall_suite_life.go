// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package coretest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

func testList(l *fwLab) {
	l.setup(fwServices()...)
	want := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range l.rounds(200) { // at once: calls that are joined must not mix up
		wg.Go(func() {
			addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			if i%2 == 1 {
				addr = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)})
			}
			w := fwWindow(addr.String(), "ssh", time.Hour)
			if err := l.fw.Open(l.Context(), w); err != nil {
				l.Errorf("open %d: %v", i, err)
			}
			if i%5 == 0 {
				if err := l.fw.Close(l.Context(), w); err != nil {
					l.Errorf("close %d: %v", i, err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			want[fmt.Sprint("ssh ", w.Prefix)] = true
		})
	}
	wg.Wait()
	got := l.windows(l.fw)
	for k := range want {
		if _, ok := got[k]; !ok {
			l.Errorf("%s is not listed", k)
		}
	}
	if len(got) != len(want) {
		l.Errorf("%d windows listed, %d are open", len(got), len(want))
	}
}

func testDrain(l *fwLab) {
	old, err := l.knocker.Dial("tcp", net.JoinHostPort(fwHost4, "22"), fwPatience)
	if err != nil {
		l.Fatal(err)
	}
	defer old.Close()
	l.setup(fwServices()...)
	l.echo(old, "a session that was open before setup")
	l.knock("ssh", time.Hour)
	c, err := l.knocker.Dial("tcp", net.JoinHostPort(fwHost6, "22"), fwPatience)
	if err != nil {
		l.Fatal(err)
	}
	defer c.Close()
	l.echo(c, "a session through a window")
	if err := l.fw.Close(l.Context(), fwWindow(fwKnocker4, "ssh", 0), fwWindow(fwKnocker6, "ssh", 0)); err != nil {
		l.Fatal(err)
	}
	l.want(l.knocker, "22", false, "after closing")
	l.echo(c, "a session whose window has closed")
	l.echo(old, "a session that was open before setup, after closing")
}

func (l *fwLab) echo(c net.Conn, what string) {
	l.Helper()
	_ = c.SetDeadline(time.Now().Add(fwPatience))
	buf := make([]byte, 4)
	if _, err := c.Write([]byte("ping")); err != nil {
		l.Errorf("%s: %v", what, err)
	} else if _, err := c.Read(buf); err != nil || string(buf) != "ping" {
		l.Errorf("%s: read %q, %v", what, buf, err)
	}
}

func testChangeServices(l *fwLab) {
	l.setup(fwServices()...)
	l.knock("ssh", time.Hour)
	l.knock("range", time.Hour)
	stop := l.never("22")
	smtp := &knockcore.Service{Name: "smtp", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 25, High: 25}, {Protocol: knockcore.UDP, Low: 25, High: 25}}}
	for range l.rounds(50) {
		l.setup(fwServices()[0], smtp)
		l.setup(fwServices()[0])
	}
	l.setup(fwServices()[0], smtp)
	stop()
	l.want(l.knocker, "22", true, "a service that remains")
	l.want(l.stranger, "8000", true, "a service that is gone")
	l.want(l.knocker, "25", false, "a new service")
	if got := l.windows(l.fw); len(got) != 2 {
		l.Errorf("listed: %v", got)
	}
	l.setup(fwServices()...)
	l.want(l.knocker, "8000", false, "a service that came back, its windows forgotten")
}

func testStop(l *fwLab) {
	ctx := context.Background()
	if err := l.fw.Stop(ctx, knockcore.ExitRemove); err != nil {
		l.Errorf("stop without setup: %v", err)
	}
	l.setup(fwServices()...)
	l.knock("ssh", time.Hour)
	if err := l.fw.Stop(ctx, knockcore.ExitKeep); err != nil {
		l.Fatalf("stop: %v", err)
	}
	l.want(l.knocker, "22", true, "after stop with keep")
	l.want(l.stranger, "22", false, "after stop with keep")
	if err := l.fw.Open(ctx, fwWindow(fwKnocker4, "ssh", time.Hour)); err == nil {
		l.Error("a window opened after stop")
	}
	if err := l.fw.Stop(ctx, knockcore.ExitRemove); err != nil {
		l.Errorf("a second stop: %v", err)
	}
	l.want(l.stranger, "22", false, "after a second stop, which does nothing")

	l.fw = l.newFirewall()
	l.setup(fwServices()...)
	l.want(l.knocker, "22", true, "after another firewall took over")
	if err := l.fw.Stop(ctx, knockcore.ExitClose); err != nil {
		l.Fatalf("stop: %v", err)
	}
	l.want(l.knocker, "22", false, "after stop with close")

	l.fw = l.newFirewall()
	l.setup(fwServices()...)
	if err := l.fw.Stop(ctx, knockcore.ExitRemove); err != nil {
		l.Fatalf("stop: %v", err)
	}
	l.want(l.stranger, "22", true, "after stop with remove")
}

func testHeal(l *fwLab) {
	if len(l.b.Breaks) == 0 {
		l.Skip("nothing that others do is mended")
	}
	l.setup(fwServices()...)
	l.knock("ssh", time.Hour)
	healer, counts := l.fw.(knockcore.Healer)
	for name, command := range l.b.Breaks {
		var before uint64
		if counts {
			before = healer.Heals()
		}
		l.host.Run(command...)
		if counts {
			l.lab.Eventually(fwPatience, name+" is noticed", func() bool { return healer.Heals() > before })
		}
		l.lab.Eventually(fwPatience, "closed again after "+name, func() bool {
			return l.stranger.Probe("tcp", net.JoinHostPort(fwHost4, "22")) != netlab.Open
		})
		l.want(l.stranger, "22", false, "after "+name)
		l.want(l.knocker, "22", true, "after "+name)
		if c, ok := l.fw.(knockcore.Checker); ok {
			if err := c.Check(l.Context()); err != nil {
				l.Errorf("after %s: %v", name, err)
			}
		}
	}
}

func testKilled(l *fwLab) {
	if l.b.EndsWithProcess {
		l.Skip("windows are timed by the process")
	}
	length := 2*l.resolution() + 8*time.Second // of which the process takes its part
	kill := startFirewallProcess(l, fwServices(), fwWindow(fwKnocker4, "ssh", length), fwWindow(fwKnocker6, "ssh", length))
	kill()
	ends := time.Now().Add(length)
	l.want(l.knocker, "22", true, "after kill -9")
	l.want(l.stranger, "22", false, "after kill -9")
	l.lab.Eventually(length+fwPatience, "the kernel ends the window", func() bool {
		for network, address := range fwProbes("22") { // each may have a timer of its own
			if time.Now().Before(ends) || l.knocker.Probe(network[:3], address) == netlab.Open {
				return false
			}
		}
		return true
	})
	l.want(l.knocker, "22", false, "after the kernel ended the window")
}

func testAdopt(l *fwLab) {
	kill := startFirewallProcess(l, fwServices(), fwWindow(fwKnocker4, "ssh", time.Hour), fwWindow(fwKnocker6, "ssh", time.Hour))
	kill()
	stop := l.never("22")
	for range l.rounds(20) {
		l.setup(fwServices()...)
		if err := l.fw.Stop(l.Context(), knockcore.ExitKeep); err != nil {
			l.Fatal(err)
		}
	}
	l.setup(fwServices()...)
	stop()
	l.want(l.knocker, "22", true, "adopted")
	if got := l.windows(l.fw); len(got) != 2 {
		l.Errorf("adopted: %v", got)
	}
	// Adopted windows are windows: they move and close.
	short := fwWindow(fwKnocker4, "ssh", time.Minute)
	l.open(short)
	l.wantExpiry(short, "an adopted window, shortened")
	if err := l.fw.Close(l.Context(), fwWindow(fwKnocker4, "ssh", 0), fwWindow(fwKnocker6, "ssh", 0)); err != nil {
		l.Fatal(err)
	}
	l.want(l.knocker, "22", false, "an adopted window, closed")
}
