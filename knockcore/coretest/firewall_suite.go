// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package coretest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// FirewallBackend is a kind of firewall, for [FirewallSuite].
type FirewallBackend struct {
	// New makes a firewall, not set up yet, that works in the network namespace:
	// a file descriptor, or 0 for that of the process.
	New func(netns int) (knockcore.Firewall, error)
	// Programs are what the tests need besides ip.
	Programs []string
	// Prepare, if set, makes ready a namespace that will be guarded.
	Prepare func(t *testing.T, host *netlab.NS)
	// Breaks are commands by which others break it in passing, and which it has
	// to mend: a flush of all rules, the reload of a firewall.
	Breaks map[string][]string
	// Resolution is how exactly windows end; 0 means 100 ms.
	Resolution time.Duration
	// Slow says that a change takes tens of milliseconds: loops have fewer rounds.
	Slow bool
	// NoPrefixes says that windows are for single addresses only.
	NoPrefixes bool
	// EndsWithProcess says that windows are timed by us, not by the kernel, so
	// that they stay open if the process is killed.
	EndsWithProcess bool
}

// The lab of the suite: a host between a knocker and a stranger.
const (
	fwHost4, fwHost6 = "192.0.2.1", "2001:db8:0:1::1"
	fwKnocker4       = "192.0.2.2"
	fwKnocker6       = "2001:db8:0:1::2"
	// fwPatience bounds the wait for what has to happen.
	fwPatience = 30 * time.Second
)

type fwLab struct {
	*testing.T
	lab                     *netlab.Lab
	host, knocker, stranger *netlab.NS
	b                       FirewallBackend
	fw                      knockcore.Firewall
	// slow is how long the last calls took: windows begin and are listed that much
	// later, so it is no error of the firewall's.
	slow time.Duration
}

// fwServices are what the suite guards. Port 25 is guarded by nobody.
func fwServices() []*knockcore.Service {
	ports := func(proto knockcore.Protocol, low, high uint16) knockcore.PortRange {
		return knockcore.PortRange{Protocol: proto, Low: low, High: high}
	}
	return []*knockcore.Service{
		{Name: "ssh", Ports: []knockcore.PortRange{ports(knockcore.TCP, 22, 22), ports(knockcore.UDP, 22, 22)}},
		{Name: "range", Ports: []knockcore.PortRange{ports(knockcore.TCP, 8000, 8010), ports(knockcore.UDP, 8000, 8010)}},
	}
}

// fwProbes are the ways to reach a port of the host.
func fwProbes(port string) map[string]string {
	return map[string]string{
		"tcp4": net.JoinHostPort(fwHost4, port), "tcp6": net.JoinHostPort(fwHost6, port),
		"udp4": net.JoinHostPort(fwHost4, port), "udp6": net.JoinHostPort(fwHost6, port),
	}
}

func newFirewallLab(t *testing.T, b FirewallBackend) *fwLab {
	t.Helper()
	lab := netlab.New(t)
	l := &fwLab{T: t, lab: lab, host: lab.NS("host"), knocker: lab.NS("knocker"), stranger: lab.NS("stranger"), b: b}
	lab.Link(l.host, []string{fwHost4 + "/24", fwHost6 + "/64"}, l.knocker, []string{fwKnocker4 + "/24", fwKnocker6 + "/64"})
	lab.Link(l.host, []string{"198.51.100.1/24", "2001:db8:0:2::1/64"}, l.stranger, []string{"198.51.100.2/24", "2001:db8:0:2::2/64"})
	l.knocker.DefaultRoute(fwHost4, fwHost6)
	l.stranger.DefaultRoute("198.51.100.1", "2001:db8:0:2::1")
	for _, port := range []string{"22", "25", "8000", "8010"} {
		for network, address := range fwProbes(port) {
			l.host.Echo(network[:3], address)
		}
	}
	if b.Prepare != nil {
		b.Prepare(t, l.host)
	}
	l.fw = l.newFirewall()
	return l
}

func (l *fwLab) newFirewall() knockcore.Firewall {
	l.Helper()
	fw, err := l.b.New(l.host.FD())
	if err != nil {
		l.Fatalf("making the firewall: %v", err)
	}
	l.Cleanup(func() { _ = fw.Stop(context.Background(), knockcore.ExitRemove) })
	return fw
}

func (l *fwLab) setup(services ...*knockcore.Service) {
	l.Helper()
	if err := l.fw.Setup(l.Context(), services); err != nil {
		l.Fatalf("setup: %v", err)
	}
}

func fwWindow(prefix, service string, length time.Duration) knockcore.Window {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		p = knockcore.AddrPrefix(netip.MustParseAddr(prefix))
	}
	return knockcore.Window{Prefix: p, Service: service, Expires: time.Now().Add(length)}
}

func (l *fwLab) open(windows ...knockcore.Window) {
	l.Helper()
	start := time.Now()
	if err := l.fw.Open(l.Context(), windows...); err != nil {
		l.Fatalf("open: %v", err)
	}
	l.slow = time.Since(start)
}

// knock opens the service for both addresses of the knocker.
func (l *fwLab) knock(service string, length time.Duration) {
	l.Helper()
	l.open(fwWindow(fwKnocker4, service, length), fwWindow(fwKnocker6, service, length))
}

// want checks how the port looks from the namespace, by all protocols.
func (l *fwLab) want(from *netlab.NS, port string, open bool, when string) {
	l.Helper()
	expected := netlab.Filtered
	if open {
		expected = netlab.Open
	}
	var wg sync.WaitGroup
	for network, address := range fwProbes(port) {
		wg.Go(func() {
			if got := from.ProbeFor(network[:3], address, expected); (got == netlab.Open) != open {
				l.Errorf("%s: port %s is %s by %s for %s", when, port, got, network, from.Name)
			}
		})
	}
	wg.Wait()
}

// never fails the test if the port is open to the stranger at any time before
// stop is called.
func (l *fwLab) never(port string) (stop func()) {
	ctx, cancel := context.WithCancel(l.Context())
	done := make(chan int)
	go func() {
		n := 0
		l.stranger.Watch(ctx, "tcp", net.JoinHostPort(fwHost4, port), time.Millisecond, func(state netlab.State) bool {
			if n++; state == netlab.Open {
				l.Errorf("port %s was open to a stranger for a moment", port)
			}
			return state != netlab.Open
		})
		done <- n
	}()
	return func() {
		cancel()
		l.Logf("port %s: probed %d times in passing", port, <-done)
	}
}

// windows lists the open windows; each may be there once.
func (l *fwLab) windows(fw knockcore.Firewall) map[string]time.Time {
	l.Helper()
	list, err := fw.List(l.Context())
	if err != nil {
		l.Fatalf("list: %v", err)
	}
	m := map[string]time.Time{}
	for _, w := range list {
		k := fmt.Sprint(w.Service, " ", w.Prefix)
		if _, twice := m[k]; twice {
			l.Errorf("window %s is listed twice", k)
		}
		m[k] = w.Expires
	}
	return m
}

// rounds is n, or less where the firewall is slow.
func (l *fwLab) rounds(n int) int {
	if l.b.Slow {
		return max(3, n/5)
	}
	return n
}

func (l *fwLab) resolution() time.Duration { return max(l.b.Resolution, 100*time.Millisecond) }

// wantExpiry checks that a window is listed with the expiry, and none other.
func (l *fwLab) wantExpiry(w knockcore.Window, when string) {
	l.Helper()
	start := time.Now()
	got, ok := l.windows(l.fw)[fmt.Sprint(w.Service, " ", w.Prefix)]
	l.slow += time.Since(start)
	if off := got.Sub(w.Expires); !ok || off.Abs() > l.resolution()+l.slow {
		l.Errorf("%s: window of %v ends at %v, asked was %v", when, w.Prefix, got, w.Expires)
	}
}

// FirewallSuite runs all that a firewall has to do. The package that calls it
// needs a TestMain with [FirewallProcess].
func FirewallSuite(t *testing.T, b FirewallBackend) {
	netlab.Need(t, b.Programs...)
	for _, test := range []struct {
		name string
		run  func(*fwLab)
	}{
		{"OpenForKnockerOnly", testOpenForKnockerOnly},
		{"Prefixes", testPrefixes},
		{"Extend", testExtend},
		{"Shorten", testShorten},
		{"BadInput", testBadInput},
		{"List", testList},
		{"Drain", testDrain},
		{"ChangeServices", testChangeServices},
		{"Stop", testStop},
		{"Heal", testHeal},
		{"Killed", testKilled},
		{"Adopt", testAdopt},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(newFirewallLab(t, b)) })
	}
}

func testOpenForKnockerOnly(l *fwLab) {
	l.want(l.knocker, "22", true, "before setup")
	l.setup(fwServices()...)
	l.setup(fwServices()...) // again: nothing changes
	for _, port := range []string{"22", "8000", "8010"} {
		l.want(l.knocker, port, false, "before the knock")
	}
	l.want(l.stranger, "25", true, "a port of no service")
	l.knock("ssh", time.Hour)
	l.want(l.knocker, "22", true, "after the knock")
	l.want(l.stranger, "22", false, "after somebody else's knock")
	l.want(l.knocker, "8000", false, "after a knock to another service")
	l.knock("range", time.Hour)
	l.want(l.knocker, "8000", true, "the first port of a range")
	l.want(l.knocker, "8010", true, "the last port of a range")
	for _, addr := range []string{fwKnocker4, fwKnocker6} {
		if err := l.fw.Close(l.Context(), fwWindow(addr, "ssh", 0)); err != nil {
			l.Fatalf("close: %v", err)
		}
	}
	l.want(l.knocker, "22", false, "after closing")
	l.want(l.knocker, "8010", true, "another service after closing")
}

func testPrefixes(l *fwLab) {
	if l.b.NoPrefixes {
		l.Skip("windows are for single addresses")
	}
	l.setup(fwServices()...)
	// Prefixes may overlap; those that end must not take the others with them.
	l.open(fwWindow("192.0.2.0/24", "ssh", time.Hour), fwWindow("192.0.2.0/25", "ssh", time.Hour), fwWindow("2001:db8:0:1::/64", "ssh", time.Hour),
		fwWindow("2001:db8::/47", "ssh", time.Hour))
	l.want(l.knocker, "22", true, "in the prefix")
	if err := l.fw.Close(l.Context(), fwWindow("192.0.2.0/25", "ssh", 0), fwWindow("2001:db8::/47", "ssh", 0)); err != nil {
		l.Fatal(err)
	}
	l.want(l.knocker, "22", true, "in the prefix that is left")
	l.want(l.stranger, "22", false, "outside the prefix")
	if got := l.windows(l.fw); len(got) != 2 {
		l.Errorf("listed: %v", got)
	}
}

func testExtend(l *fwLab) {
	l.setup(fwServices()...)
	const length = time.Minute
	first := fwWindow(fwKnocker4, "ssh", length)
	l.open(first)
	l.wantExpiry(first, "at first")
	time.Sleep(2*l.resolution() + 4*l.slow) // so that the two can be told apart
	again := fwWindow(fwKnocker4, "ssh", length)
	l.open(again)
	l.wantExpiry(again, "opened again for the same time")
	longer := fwWindow(fwKnocker4, "ssh", time.Hour)
	l.open(longer)
	l.wantExpiry(longer, "opened again for longer")
}

func testShorten(l *fwLab) {
	l.setup(fwServices()...)
	l.knock("ssh", time.Hour)
	// A busy machine may look when it is over: then once more, for longer.
	for short := 2*l.resolution() + 300*time.Millisecond; ; short *= 4 {
		windows := []knockcore.Window{fwWindow(fwKnocker4, "ssh", short), fwWindow(fwKnocker6, "ssh", short)}
		err := l.fw.Open(l.Context(), windows...)
		for network, address := range fwProbes("22") {
			if err == nil {
				var state netlab.State
				if state, err = l.knocker.ProbeFrom(network[:3], "", address, short/8); err == nil && state != netlab.Open {
					err = fmt.Errorf("the port is %s by %s", state, network)
				}
			}
		}
		if err == nil {
			break
		}
		if time.Now().Before(windows[0].Expires) {
			l.Fatalf("while it lasts: %v", err)
		}
		l.knock("ssh", time.Hour)
	}
	l.lab.Eventually(fwPatience, "a shortened window ends", func() bool { return len(l.windows(l.fw)) == 0 })
	l.want(l.knocker, "22", false, "after the shortened window")
}

func testBadInput(l *fwLab) {
	if err := l.fw.Open(l.Context(), fwWindow(fwKnocker4, "ssh", time.Hour)); err == nil {
		l.Error("a window opened before setup")
	}
	l.setup(fwServices()...)
	for what, w := range map[string]knockcore.Window{
		"an unknown service": fwWindow(fwKnocker4, "nobody", time.Hour),
		"the past":           fwWindow(fwKnocker4, "ssh", -time.Second),
		"no time":            {Prefix: netip.MustParsePrefix("192.0.2.2/32"), Service: "ssh"},
		"no prefix":          {Service: "ssh", Expires: time.Now().Add(time.Hour)},
	} {
		if err := l.fw.Open(l.Context(), w); err == nil {
			l.Errorf("a window for %s opened", what)
		}
	}
	ctx, cancel := context.WithCancel(l.Context())
	cancel()
	if err := l.fw.Open(ctx, fwWindow(fwKnocker4, "ssh", time.Hour)); !errors.Is(err, context.Canceled) {
		l.Errorf("with a cancelled context: %v", err)
	}
	if err := l.fw.Close(l.Context(), fwWindow(fwKnocker4, "ssh", 0)); err != nil {
		l.Errorf("closing what is not open: %v", err)
	}
	if got := l.windows(l.fw); len(got) != 0 {
		l.Errorf("open after all: %v", got)
	}
	mapped := fwWindow("::ffff:"+fwKnocker4+"/128", "ssh", time.Hour)
	l.open(mapped)
	if state := l.knocker.ProbeFor("tcp", net.JoinHostPort(fwHost4, "22"), netlab.Open); state != netlab.Open {
		l.Errorf("a window for an IPv4-mapped address: port is %s", state)
	}
}
