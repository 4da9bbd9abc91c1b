// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func named(t *testing.T, name string, ports ...string) *knockcore.Service {
	t.Helper()
	s := &knockcore.Service{Name: name}
	for _, p := range ports {
		r, err := knockcore.ParsePortRange(p)
		if err != nil {
			t.Fatal(err)
		}
		s.Ports = append(s.Ports, r)
	}
	return s
}

func TestClasses(t *testing.T) {
	for _, c := range []struct {
		services []*knockcore.Service
		want     string
	}{
		{[]*knockcore.Service{named(t, "a", "tcp/22")}, "a: tcp/22"},
		{[]*knockcore.Service{named(t, "a", "tcp/22", "tcp/23", "udp/22")}, "a: tcp/22-23 udp/22"},
		{[]*knockcore.Service{named(t, "a", "tcp/22", "tcp/22")}, "a: tcp/22"},
		{[]*knockcore.Service{named(t, "a", "tcp/1-65535")}, "a: tcp/1-65535"},
		{[]*knockcore.Service{named(t, "a", "tcp/10-20"), named(t, "b", "tcp/15")}, "a: tcp/10-14 tcp/16-20; mixed-1(a b): tcp/15"},
		{[]*knockcore.Service{named(t, "a", "tcp/10-20"), named(t, "b", "tcp/20-30"), named(t, "c", "udp/20")}, "a: tcp/10-19; mixed-1(a b): tcp/20; b: tcp/21-30; c: udp/20"},
		{[]*knockcore.Service{{Name: "any", Ports: []knockcore.PortRange{{Low: 5, High: 6}}}}, "any: tcp/5-6 udp/5-6"},
		{nil, ""},
	} {
		var got []string
		for _, class := range classes(c.services) {
			text := class.name
			if len(class.services) > 1 {
				text += "(" + strings.Join(segment{services: class.services}.names(), " ") + ")"
			}
			text += ":"
			for _, r := range class.ports {
				text += " " + r.String()
			}
			got = append(got, text)
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("got  %s\nwant %s", text, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"ssh", "SSH", "a-b", "a_b", "a.b", "8", "8ball", "_x", "ünïcode", strings.Repeat("x", 41), strings.Repeat("x", 255), "\"; flush ruleset; #", "s_a_b_5dd8eb5f"} {
		tok := token(name)
		if other, taken := seen[tok]; taken {
			t.Errorf("%q and %q are both %s", name, other, tok)
		}
		seen[tok] = name
		if err := validateName("set", tok); err != nil && tok[0] != '_' {
			t.Error(err)
		}
		if strings.Contains(tok, "-") || len(tok) > maxToken {
			t.Errorf("token %s of %q", tok, name)
		}
		for _, g := range append(standard(name), group{name, false, 24}, group{name, false, 0}, group{name, true, 48}) {
			back, ok := groupOfSet(g.setName())
			if want := (group{tok, g.v6, g.bits}); !ok || back != want {
				t.Errorf("%s is read back as %+v, want %+v", g.setName(), back, want)
			}
		}
	}
	for _, name := range []string{"", "ssh", "-4", "ssh-5", "ssh-4-32", "ssh-4-33", "ssh-6-128", "ssh-6-x", "ssh-4--1", markerSet, keptSet4} {
		if g, ok := groupOfSet(name); ok {
			t.Errorf("%q is read as %+v", name, g)
		}
	}
}

func TestKeyOf(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.9/32": "192.0.2.9/32", "192.0.2.9/24": "192.0.2.0/24", "::ffff:192.0.2.9/128": "192.0.2.9/32",
		"::ffff:192.0.2.9/120": "192.0.2.0/24", "::/0": "::/0", "2001:db8::5/64": "2001:db8::/64", "::ffff:0:0/95": "::fffe:0:0/95",
	} {
		k, err := keyOf(knockcore.Window{Prefix: netip.MustParsePrefix(text), Service: "ssh"})
		if err != nil || k.prefix.String() != want {
			t.Errorf("%s becomes %v, want %s (%v)", text, k.prefix, want, err)
		}
	}
	zoned := netip.PrefixFrom(netip.MustParseAddr("fe80::1%eth0"), 128)
	if k, err := keyOf(knockcore.Window{Prefix: zoned}); err == nil && k.prefix.Addr().Zone() != "" {
		t.Errorf("the zone stays: %v", k)
	}
	if _, err := keyOf(knockcore.Window{}); err == nil {
		t.Error("no prefix is a prefix")
	}
}

func TestTimeout(t *testing.T) {
	now := time.Now()
	for left, want := range map[time.Duration]time.Duration{
		time.Hour: time.Hour, 1500 * time.Microsecond: time.Millisecond, time.Microsecond: minTimeout, 0: minTimeout, -time.Hour: minTimeout,
	} {
		if got := timeoutUntil(now, now.Add(left)); got != want {
			t.Errorf("%v left: timeout %v, want %v", left, got, want)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for what, services := range map[string][]*knockcore.Service{
		"no port":    {{Name: "a"}},
		"same name":  {named(t, "a", "tcp/1"), named(t, "a", "tcp/2")},
		"blank name": {named(t, "a b", "tcp/1")},
	} {
		if _, err := Print(Config{}, services); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestConfig(t *testing.T) {
	for what, cfg := range map[string]Config{
		"table":     {Table: "a b"},
		"injection": {Table: "x; flush ruleset"},
		"digit":     {Table: "1a"},
		"hook":      {Hook: "output"},
		"prefix":    {Allow: []netip.Prefix{{}}},
		"interface": {Interfaces: []string{"eth0\" accept"}},
		"star":      {Interfaces: []string{"*"}},
		"stars":     {Interfaces: []string{"e*h*"}},
		"long":      {Interfaces: []string{"averyveryverylongname"}},
		"family":    {Sets: []SetRef{{Family: "arp", Table: "a", Set: "b"}}},
		"set":       {Sets: []SetRef{{Table: "a", Set: "b }"}}},
		"ban sets":  {Sets: []SetRef{{Table: "a", Set: "b"}}, Bans: &BanRules{Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 80, High: 80}}}},
		"no ports":  {Bans: new(BanRules)},
		"bad ports": {Bans: &BanRules{Ports: []knockcore.PortRange{{Low: 80, High: 80}}}},
	} {
		if err := cfg.Validate(); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := Print(Config{Sets: []SetRef{{Table: "a", Set: "b"}}}, nil); err == nil {
		t.Error("sets of the operator's are printed")
	}
	for text, want := range map[string]string{"filter trusted": "inet filter trusted", "ip6 filter trusted": "ip6 filter trusted"} {
		if r, err := ParseSetRef(text); err != nil || r.String() != want {
			t.Errorf("%q is read as %v: %v", text, r, err)
		}
	}
	for _, text := range []string{"", "a", "a b c d", "arp a b"} {
		if _, err := ParseSetRef(text); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}

// TestPrintText is the whole text of a small example, so that a change of the
// rules shows.
func TestPrintText(t *testing.T) {
	text, err := Print(Config{Reject: []string{"dns"}}, []*knockcore.Service{named(t, "ssh", "tcp/22"), named(t, "dns", "udp/53")})
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "chain ") || slices.ContainsFunc([]string{"accept", "drop", "goto", "reject", "continue"}, func(w string) bool { return strings.Contains(line, w) }) {
			rules = append(rules, line)
		}
	}
	const want = `chain knock {
type filter hook prerouting priority -110; policy accept;
iifname "lo" accept
goto ports
chain ports {
meta l4proto . th dport vmap { tcp . 22 : goto svc-ssh, udp . 53 : goto svc-dns }
chain svc-ssh {
tcp flags & (syn | ack) != syn accept
fib daddr type { local, broadcast, anycast, multicast } goto win-ssh
chain win-ssh {
ip saddr @ssh-4 counter name ssh-open accept
ip6 saddr @ssh-6 counter name ssh-open accept
ip6 saddr & ffff:ffff:ffff:ffff:: @ssh-6-64 counter name ssh-open accept
ct state invalid continue comment "makes the kernel reassemble fragments"
counter name ssh-shut drop
chain svc-dns {
meta l4proto udp ct state established accept
fib daddr type { local, broadcast, anycast, multicast } goto win-dns
chain win-dns {
ip saddr @dns-4 counter name dns-open accept
ip6 saddr @dns-6 counter name dns-open accept
ip6 saddr & ffff:ffff:ffff:ffff:: @dns-6-64 counter name dns-open accept
ct state invalid continue comment "makes the kernel reassemble fragments"
meta l4proto udp counter name dns-shut reject with icmpx type port-unreachable
drop`
	if got := strings.Join(rules, "\n"); got != want {
		t.Errorf("rules:\n%s\nwant:\n%s", got, want)
	}
}

func ExamplePrint() {
	ssh := &knockcore.Service{Name: "ssh", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 22, High: 22}}}
	text, err := Print(Config{}, []*knockcore.Service{ssh})
	if err != nil {
		panic(err)
	}
	fmt.Println(strings.Contains(text, "tcp . 22 : goto svc-ssh"))
	// Output: true
}
