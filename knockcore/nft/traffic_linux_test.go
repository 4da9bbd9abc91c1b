// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

func (w *town) want(t *testing.T, from *netlab.NS, network, ip, port string, want netlab.State, when string) {
	t.Helper()
	if got := from.ProbeFor(network, net.JoinHostPort(ip, port), want); got != want {
		t.Errorf("%s: %s port %s of %s is %s from %s, want %s", when, network, port, ip, got, from.Name, want)
	}
}

// dockerTown has a container behind the host, whose port 80 is published as the
// host's port 8080, as Docker does it.
func dockerTown(t *testing.T) (w *town, container *netlab.NS) {
	w = newTown(t)
	w.host.Forward()
	container = w.NS("container")
	w.Link(w.host, []string{"172.17.0.1/24", "fd00:17::1/64"}, container, []string{"172.17.0.2/24", "fd00:17::2/64"})
	container.DefaultRoute("172.17.0.1", "fd00:17::1")
	for _, network := range []string{"tcp", "udp"} {
		container.Echo(network, "172.17.0.2:80")
		container.Echo(network, "[fd00:17::2]:80")
	}
	w.host.RunInput(`table inet docker {
		chain pre {
			type nat hook prerouting priority -100
			fib daddr type local meta l4proto { tcp, udp } th dport 8080 dnat ip to 172.17.0.2:80
			fib daddr type local meta l4proto { tcp, udp } th dport 8080 dnat ip6 to [fd00:17::2]:80
		}
	}`, "nft", "-f", "-")
	return w, container
}

func TestPublishedPort(t *testing.T) {
	netlab.Need(t, "nft")
	w, _ := dockerTown(t)
	all := func(from *netlab.NS, want netlab.State, when string) {
		t.Helper()
		for _, network := range []string{"tcp", "udp"} {
			w.want(t, from, network, host4, "8080", want, when)
			w.want(t, from, network, host6, "8080", want, when)
		}
	}
	all(w.knocker, netlab.Open, "before setup")
	e := start(t, w.host, Config{}, service(t, "app", "tcp/8080", "udp/8080"))
	all(w.knocker, netlab.Filtered, "before the knock")
	open(t, e, window(knocker4, "app", time.Hour), window(knocker6, "app", time.Hour))
	all(w.knocker, netlab.Open, "after the knock")
	all(w.stranger, netlab.Filtered, "after somebody else's knock")

	// With hook input the gate stands behind the translation.
	input := Config{Hook: HookInput, NetNS: w.host.FD()}
	if err := e.Configure(input); err != nil {
		t.Fatal(err)
	}
	if err := e.Setup(t.Context(), []*knockcore.Service{service(t, "app", "tcp/8080", "udp/8080", "tcp/80")}); err != nil {
		t.Fatal(err)
	}
	all(w.stranger, netlab.Open, "with hook input")
	if warn := strings.Join(e.Warnings(), "\n"); !strings.Contains(warn, "Docker") {
		t.Errorf("warnings: %q", warn)
	}
}

// TestForwardedTraffic: what is only passing through does not concern us.
func TestForwardedTraffic(t *testing.T) {
	w, container := dockerTown(t)
	for _, network := range []string{"tcp", "udp"} {
		w.stranger.Echo(network, net.JoinHostPort(stranger4, "80"))
		w.stranger.Echo(network, net.JoinHostPort(stranger6, "80"))
	}
	svc := service(t, "web", "tcp/80", "udp/80")
	e := start(t, w.host, Config{}, svc)
	for _, network := range []string{"tcp", "udp"} {
		w.want(t, container, network, stranger4, "80", netlab.Open, "from a container to elsewhere")
		w.want(t, container, network, stranger6, "80", netlab.Open, "from a container to elsewhere")
		w.want(t, w.knocker, network, stranger4, "80", netlab.Open, "from one net to another")
		w.want(t, w.knocker, network, "172.17.0.2", "80", netlab.Open, "to a routed container")
	}
	// A routed container is gated if the service says so.
	svc.Destinations = []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("fd00:17::2/128")}
	if err := e.Setup(t.Context(), []*knockcore.Service{svc}); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "udp"} {
		w.want(t, w.knocker, network, "172.17.0.2", "80", netlab.Filtered, "to a routed container that is gated")
		w.want(t, w.knocker, network, "fd00:17::2", "80", netlab.Filtered, "to a routed container that is gated")
		w.want(t, container, network, stranger4, "80", netlab.Open, "from that container to elsewhere")
	}
	open(t, e, window(knocker4, "web", time.Hour), window(knocker6, "web", time.Hour))
	w.want(t, w.knocker, "tcp", "172.17.0.2", "80", netlab.Open, "to a routed container after the knock")
	w.want(t, w.knocker, "udp", "fd00:17::2", "80", netlab.Open, "to a routed container after the knock")
}

func TestWhoIsNotGated(t *testing.T) {
	w := newTown(t)
	w.host.Echo("tcp", ":22")
	svc := service(t, "ssh", "tcp/22")
	e := start(t, w.host, Config{}, svc)
	w.want(t, w.host, "tcp", "127.0.0.1", "22", netlab.Open, "over loopback")
	w.want(t, w.host, "tcp", host4, "22", netlab.Open, "from the host to itself")
	w.want(t, w.host, "tcp", "::1", "22", netlab.Open, "over loopback")
	set := func(cfg Config) {
		t.Helper()
		cfg.NetNS = w.host.FD()
		if err := e.Configure(cfg); err != nil {
			t.Fatal(err)
		}
		if err := e.Setup(t.Context(), []*knockcore.Service{svc}); err != nil {
			t.Fatal(err)
		}
	}
	set(Config{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.0.0/22"), netip.MustParsePrefix("2001:db8:0:1::/64")}})
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Open, "from an allowed range")
	w.want(t, w.knocker, "tcp", host6, "22", netlab.Open, "from an allowed range")
	w.want(t, w.stranger, "tcp", host4, "22", netlab.Filtered, "from another")
	set(Config{Interfaces: []string{"eth1"}})
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Open, "on another device")
	w.want(t, w.stranger, "tcp", host4, "22", netlab.Filtered, "on the gated device")
	set(Config{Interfaces: []string{"et*"}})
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Filtered, "on a device whose name begins so")
	set(Config{Interfaces: []string{"eth"}})
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Open, "on a device whose name only begins so")
}

// TestReject: a rejecting service looks like a port where nothing listens.
func TestReject(t *testing.T) {
	w := newTown(t)
	w.host.Echo("tcp", ":22")
	w.host.Echo("udp", ":22")
	e := start(t, w.host, Config{Reject: []string{"ssh"}}, service(t, "ssh", "tcp/22", "udp/22"), service(t, "other", "tcp/23"))
	for _, network := range []string{"tcp", "udp"} {
		for _, ip := range []string{host4, host6} {
			w.want(t, w.knocker, network, ip, "24", netlab.Closed, "where nothing listens")
			w.want(t, w.knocker, network, ip, "22", netlab.Closed, "where the service rejects")
		}
	}
	w.want(t, w.knocker, "tcp", host4, "23", netlab.Filtered, "where the service drops")
	counts, err := e.Counts(t.Context())
	if err != nil || counts["ssh"].Shut == 0 || counts["other"].Shut == 0 || counts["ssh"].Opened != 0 {
		t.Errorf("counts: %+v, %v", counts, err)
	}
	open(t, e, window(knocker4, "ssh", time.Hour))
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Open, "after the knock")
	if counts, _ = e.Counts(t.Context()); counts["ssh"].Opened == 0 {
		t.Errorf("counts after the knock: %+v", counts)
	}
	if err := e.Setup(t.Context(), []*knockcore.Service{service(t, "ssh", "tcp/22", "udp/22")}); err != nil {
		t.Fatal(err)
	}
	if again, _ := e.Counts(t.Context()); again["ssh"] != counts["ssh"] {
		t.Errorf("counts before another setup %+v, after it %+v", counts["ssh"], again["ssh"])
	}
}

// TestScan asks the scanner that everybody uses.
func TestScan(t *testing.T) {
	netlab.Need(t, "nft", "nmap")
	w := newTown(t)
	w.host.Echo("tcp", ":22")
	start(t, w.host, Config{Reject: []string{"mail"}}, service(t, "ssh", "tcp/22"), service(t, "mail", "tcp/25"))
	out := w.stranger.Run("nmap", "-n", "-Pn", "-sS", "--max-retries", "2", "-p", "22,25,26", "-oG", "-", host4)
	for _, want := range []string{"22/filtered/", "25/closed/", "26/closed/"} {
		if !strings.Contains(out, want) {
			t.Errorf("nmap does not say %s:\n%s", want, out)
		}
	}
}

// TestMulticast: a datagram to a group reaches every socket that is bound to any
// address, so that a gate for the host's own addresses alone would be open.
func TestMulticast(t *testing.T) {
	w := newTown(t)
	for _, ip := range []string{"0.0.0.0", "::"} {
		p := w.host.ListenPacket(net.JoinHostPort(ip, "53"))
		got := make(chan string, 64)
		next := func() string {
			select {
			case text := <-got:
				return text
			case <-time.After(20 * time.Second):
				return "nothing"
			}
		}
		go func() {
			buf := make([]byte, 64)
			for {
				n, _, err := p.ReadFrom(buf)
				if err != nil {
					return
				}
				got <- string(buf[:n])
			}
		}()
		group, dev := "224.0.0.1", "eth0"
		if ip == "::" {
			// By number: package net remembers names, but of which namespace?
			group = "ff02::1%" + strings.TrimSpace(w.knocker.Run("cat", "/sys/class/net/eth0/ifindex"))
			t.Log(group)
		}
		w.knocker.Run("ip", "route", "replace", "multicast", "224.0.0.0/4", "dev", dev)
		send := func(text string) {
			c, err := w.knocker.Dial("udp", net.JoinHostPort(group, "53"), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		send("before")
		if text := next(); text != "before" {
			t.Fatalf("got %q", text)
		}
		e := start(t, w.host, Config{}, service(t, "dns", "udp/53"))
		send("shut")
		w.Eventually(20*time.Second, "the datagram is counted as shut", func() bool {
			counts, err := e.Counts(t.Context())
			return err == nil && counts["dns"].Shut > 0
		})
		open(t, e, window(knocker4, "dns", time.Hour), window("fe80::/64", "dns", time.Hour))
		send("after")
		if text := next(); text != "after" {
			t.Errorf("%s: got %q through a closed port", ip, text)
		}
		if err := e.Stop(t.Context(), knockcore.ExitRemove); err != nil {
			t.Fatal(err)
		}
		_ = p.Close()
	}
}

// TestOverlap: where services share a port a window to either opens it.
func TestOverlap(t *testing.T) {
	w := newTown(t)
	w.host.Echo("tcp", ":8005")
	w.host.Echo("tcp", ":8006")
	e := start(t, w.host, Config{}, service(t, "many", "tcp/8000-8010"), service(t, "one", "tcp/8005"))
	open(t, e, window(knocker4, "many", time.Hour), window(stranger4, "one", time.Hour))
	w.want(t, w.knocker, "tcp", host4, "8005", netlab.Open, "by the range")
	w.want(t, w.knocker, "tcp", host4, "8006", netlab.Open, "by the range")
	w.want(t, w.stranger, "tcp", host4, "8005", netlab.Open, "by the one")
	w.want(t, w.stranger, "tcp", host4, "8006", netlab.Filtered, "by the one")
}

// TestFragments: datagrams that come in pieces are gated as a whole.
func TestFragments(t *testing.T) {
	w := newTown(t)
	w.host.Echo("udp", ":53")
	e := start(t, w.host, Config{}, service(t, "dns", "udp/53"))
	echoed := func(from *netlab.NS, ip string, wait time.Duration) bool {
		t.Helper()
		c, err := from.Dial("udp", net.JoinHostPort(ip, "53"), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(wait))
		if _, err := c.Write(make([]byte, 4000)); err != nil {
			t.Fatal(err)
		}
		_, err = c.Read(make([]byte, 8192))
		return err == nil
	}
	for _, ip := range []string{host4, host6} {
		if echoed(w.knocker, ip, netlab.ProbeTimeout) {
			t.Errorf("%s: pieces got in before the knock", ip)
		}
		open(t, e, window(knocker4, "dns", time.Hour), window(knocker6, "dns", time.Hour))
		if !echoed(w.knocker, ip, 20*time.Second) {
			t.Errorf("%s: pieces did not get in after the knock", ip)
		}
		if echoed(w.stranger, ip, netlab.ProbeTimeout) {
			t.Errorf("%s: a stranger's pieces got in", ip)
		}
		if err := e.Close(t.Context(), window(knocker4, "dns", 0), window(knocker6, "dns", 0)); err != nil {
			t.Fatal(err)
		}
	}
}
