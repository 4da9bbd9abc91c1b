// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

func ban(prefix string, length time.Duration) knockcore.Ban {
	return knockcore.Ban{Prefix: window(prefix, "", 0).Prefix, Until: time.Now().Add(length), Strikes: 1}
}

// banTown is a host with a web server and a gated ssh, which keeps banned addresses
// out of the web server's ports.
func banTown(t *testing.T) (w *town, cfg Config, ssh *knockcore.Service) {
	w = newTown(t)
	for _, port := range []string{"22", "80", "443"} {
		w.host.Echo("tcp", ":"+port)
		for _, ip := range []string{host4, host6, "198.51.100.1", "2001:db8:0:2::1"} {
			w.host.Echo("udp", net.JoinHostPort(ip, port))
		}
	}
	web := service(t, "web", "tcp/443", "udp/443")
	return w, Config{Bans: &BanRules{Ports: web.Ports, Spare: []string{"web"}}}, service(t, "ssh", "tcp/22")
}

func (w *town) web(t *testing.T, from *netlab.NS, want netlab.State, when string) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		w.want(t, from, network, host4, "443", want, when)
		w.want(t, from, network, host6, "443", want, when)
	}
}

func TestBans(t *testing.T) {
	w, cfg, ssh := banTown(t)
	e := start(t, w.host, cfg, ssh)
	apply := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	w.web(t, w.stranger, netlab.Open, "before the ban")
	before, err := w.stranger.Dial("tcp", host4+":443", 5*time.Second)
	apply("dial", err)
	defer before.Close()

	apply("ban", e.Ban(t.Context(), ban(stranger4, time.Hour), ban("2001:db8:0:2::/64", time.Hour)))
	w.web(t, w.stranger, netlab.Filtered, "banned")
	w.web(t, w.knocker, netlab.Open, "somebody else is banned")
	w.want(t, w.stranger, "tcp", host4, "80", netlab.Open, "banned, at a port that bans don't concern")
	echo := func(when string) {
		t.Helper()
		_ = before.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := before.Write([]byte("x")); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if n, err := before.Read(make([]byte, 1)); n != 1 {
			t.Errorf("%s: the connection that stood before the ban: %v", when, err)
		}
	}
	echo("banned")
	if counts, err := e.Counts(t.Context()); err != nil || counts[""].Shut == 0 {
		t.Errorf("counts: %+v %v", counts, err)
	}

	// A grant is stronger, whatever its service, and a window of any width.
	for _, windows := range [][]knockcore.Window{
		{window(stranger4, "web", time.Hour), window(stranger6, "web", time.Hour)},
		{window("198.51.100.0/24", "ssh", time.Hour), window("2001:db8:0:2::/60", "ssh", time.Hour)},
	} {
		open(t, e, windows...)
		w.web(t, w.stranger, netlab.Open, "banned, with a grant")
		w.want(t, w.stranger, "udp", host6, "443", netlab.Open, "banned, with a grant")
		apply("close", e.Close(t.Context(), windows...))
		w.web(t, w.stranger, netlab.Filtered, "banned, after the grant")
	}
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Filtered, "the gate")
	if windows := list(t, e); len(windows) != 0 {
		t.Errorf("bans are listed as windows: %v", windows)
	}

	// What others flush is put back, bans and all.
	open(t, e, window(stranger6, "web", time.Hour))
	w.host.Run("nft", "flush", "ruleset")
	w.Eventually(20*time.Second, "the ban to be put back", func() bool {
		return e.Check(t.Context()) == nil && w.stranger.Probe("tcp", host4+":443") == netlab.Filtered
	})
	w.want(t, w.stranger, "tcp", host6, "443", netlab.Open, "banned, with a grant, after a flush")
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Filtered, "the gate after a flush")

	apply("lift", e.Lift(t.Context(), netip.MustParsePrefix(stranger4+"/32"), netip.MustParsePrefix("203.0.113.0/24")))
	w.want(t, w.stranger, "tcp", host4, "443", netlab.Open, "lifted")
	apply("close", e.Close(t.Context(), window(stranger6, "web", time.Hour)))
	w.want(t, w.stranger, "udp", host6, "443", netlab.Filtered, "the other family is still banned")

	// The host's own questions are answered, from whatever port.
	asked, answered := w.host.ListenPacket("192.0.2.1:4443"), make([]byte, 16)
	ask := cfg
	ask.Bans = &BanRules{Ports: service(t, "", "udp/4443", "tcp/1-65535").Ports}
	ask.NetNS = w.host.FD()
	apply("configure", e.Configure(ask))
	apply("setup", e.Setup(t.Context(), []*knockcore.Service{ssh}))
	apply("ban", e.Ban(t.Context(), ban(knocker4, time.Hour)))
	w.knocker.Echo("udp", knocker4+":53")
	w.knocker.Echo("tcp", knocker4+":53")
	_, err = asked.WriteTo([]byte("who?"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(knocker4+":53")))
	apply("ask", err)
	_ = asked.SetDeadline(time.Now().Add(20 * time.Second))
	if n, _, err := asked.ReadFrom(answered); n != 4 {
		t.Errorf("a banned server's answer does not arrive: %v", err)
	}
	w.want(t, w.host, "tcp", knocker4, "53", netlab.Open, "from the host to who is banned")
	w.want(t, w.knocker, "tcp", host4, "80", netlab.Filtered, "banned from a range")

	// Without bans nothing is left of them.
	apply("configure", e.Configure(Config{NetNS: w.host.FD()}))
	apply("setup", e.Setup(t.Context(), []*knockcore.Service{ssh}))
	w.web(t, w.stranger, netlab.Open, "no bans any more")
	if text := w.host.Run("nft", "list", "ruleset"); strings.Contains(text, "ban") {
		t.Errorf("left behind:\n%s", text)
	}
}

// TestBansOutliveUs: the kernel ends bans, and the next engine takes them over.
func TestBansOutliveUs(t *testing.T) {
	w, cfg, ssh := banTown(t)
	cfg.Bans.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	first := start(t, w.host, cfg, ssh)
	if err := first.Ban(t.Context(), ban(stranger4, time.Hour), ban(knocker4, time.Hour), ban("203.0.113.9", time.Second)); err != nil {
		t.Fatal(err)
	}
	w.want(t, w.knocker, "tcp", host4, "443", netlab.Open, "banned and allowed")
	if err := first.Stop(context.Background(), knockcore.ExitKeep); err != nil {
		t.Fatal(err)
	}
	w.want(t, w.stranger, "tcp", host4, "443", netlab.Filtered, "nobody is left")
	second := start(t, w.host, cfg, ssh)
	w.Eventually(20*time.Second, "the short ban to be over", func() bool {
		bans, err := second.Banned(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(bans) == 2 && time.Until(bans[0].Until) > 50*time.Minute
	})
	w.want(t, w.stranger, "udp", host4, "443", netlab.Filtered, "taken over")
	if err := second.Ban(t.Context(), ban(stranger4, 3*time.Second)); err != nil {
		t.Fatal(err)
	}
	w.Eventually(20*time.Second, "the kernel to end a ban that became shorter", func() bool {
		return w.stranger.Probe("tcp", host4+":443") == netlab.Open
	})
	if err := second.Ban(t.Context(), ban(stranger4, time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := second.Stop(context.Background(), knockcore.ExitClose); err != nil {
		t.Fatal(err)
	}
	w.want(t, w.stranger, "tcp", host4, "443", netlab.Open, "after a stop that ends what is timed")
	w.want(t, w.stranger, "tcp", host4, "22", netlab.Filtered, "the gate, which stays")
}
