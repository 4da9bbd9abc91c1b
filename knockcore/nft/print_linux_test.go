// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// TestPrintIsInstall: what is printed, loaded by nft, is what the engine
// installs, as nft lists both.
func TestPrintIsInstall(t *testing.T) {
	netlab.Need(t, "nft")
	cut := service(t, "database", "tcp/5432", "udp/5432")
	cut.CutOnExpire = true
	routed := service(t, "jellyfin", "tcp/443", "udp/443", "tcp/8000-8100")
	routed.Destinations = []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("172.18.0.5/32"), netip.MustParsePrefix("fd00:1::/44")}
	allow := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.64.0/18"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("2001:db8::1/128")}
	cases := map[string]struct {
		cfg      Config
		services []*knockcore.Service
	}{
		"one":      {Config{}, []*knockcore.Service{service(t, "ssh", "tcp/22")}},
		"none":     {Config{}, nil},
		"many":     {Config{Allow: allow}, []*knockcore.Service{service(t, "ssh", "tcp/22", "udp/60000-61000"), routed, cut}},
		"reject":   {Config{Reject: []string{"ssh", "jellyfin"}, Interfaces: []string{"eth0", "wg*"}}, []*knockcore.Service{service(t, "ssh", "tcp/22"), routed, cut}},
		"input":    {Config{Hook: HookInput, RejectAll: true, Table: "other"}, []*knockcore.Service{service(t, "dns", "udp/53")}},
		"overlaps": {Config{}, []*knockcore.Service{service(t, "web", "tcp/80-90"), service(t, "admin", "tcp/85", "tcp/100"), service(t, "all", "tcp/1-65535", "udp/1-65535")}},
		"bans": {Config{Allow: allow, Interfaces: []string{"eth0", "eth1"}, Bans: &BanRules{
			Ports: service(t, "", "tcp/443", "udp/443", "tcp/22", "tcp/8000-9000").Ports, Allow: allow[:1], Spare: []string{"web", "a.b"},
		}}, []*knockcore.Service{service(t, "ssh", "tcp/22"), service(t, "banned", "tcp/8080")}},
		"names": {Config{}, []*knockcore.Service{service(t, "tcp", "tcp/1"), service(t, "Ärger mit-Namen", "tcp/2"), service(t, "8ball", "tcp/3"), service(t, strings.Repeat("x", 255), "tcp/4")}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for _, s := range c.services {
				s.Name = strings.ReplaceAll(s.Name, " ", "·")
			}
			lab := netlab.New(t)
			byNft, byUs := lab.NS("nft"), lab.NS("us")
			text, err := Print(c.cfg, c.services)
			if err != nil {
				t.Fatal(err)
			}
			byNft.RunInput(text, "nft", "-f", "-")
			byNft.RunInput(text, "nft", "-f", "-") // again: no rule twice
			e := start(t, byUs, c.cfg, c.services...)
			want, got := listing(byNft, c.cfg), listing(byUs, c.cfg)
			if got != want {
				t.Errorf("installed:\n%s\nprinted and loaded:\n%s\ntext:\n%s", got, want, text)
			}
			if err := e.Setup(t.Context(), c.services); err != nil {
				t.Fatal(err)
			}
			if again := listing(byUs, c.cfg); again != want {
				t.Errorf("after another setup:\n%s\nwant:\n%s", again, want)
			}
			if err := e.Stop(context.Background(), knockcore.ExitRemove); err != nil {
				t.Fatal(err)
			}
			if rest := byUs.Run("nft", "list", "ruleset"); rest != "" {
				t.Errorf("left behind:\n%s", rest)
			}
			// An engine adopts what nft loaded.
			start(t, byNft, c.cfg, c.services...)
			if adopted := listing(byNft, c.cfg); adopted != want {
				t.Errorf("adopted:\n%s\nwant:\n%s", adopted, want)
			}
		})
	}
}

var marking = regexp.MustCompile(`(?s)\n\t\telements = \{ 0x[0-9a-f]+ comment "pid [^}]*\}`)

// listing is the table as nft lists it, without our mark of ownership.
func listing(ns *netlab.NS, cfg Config) string {
	return marking.ReplaceAllString(ns.Run("nft", "-s", "list", "table", "inet", cfg.table()), "")
}
