// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
)

var sshService = &knockcore.Service{Name: "ssh", Ports: []knockcore.PortRange{
	{Protocol: knockcore.TCP, Low: 22, High: 22}, {Protocol: knockcore.UDP, Low: 60000, High: 61000},
}}

func TestRules(t *testing.T) {
	var got []string
	for _, r := range (Config{}).gateRules(sshService) {
		got = append(got, r.String())
	}
	until := time.UnixMilli(1798761600250).UTC()
	for _, r := range (Config{Priority: -5, Reject: true}).windowRules(sshService, netip.MustParsePrefix("2001:db8::/64"), until) {
		got = append(got, r.String())
	}
	const want = `
rule priority="-999" port port="22" protocol="tcp" nflog group="65535" prefix="caddy-knock gate ssh" drop
rule priority="-999" port port="60000-61000" protocol="udp" nflog group="65535" prefix="caddy-knock gate ssh" drop
rule priority="-5" family="ipv6" source address="2001:db8::/64" port port="22" protocol="tcp" nflog group="65535" prefix="caddy-knock ssh 1798761600250" accept
rule priority="-5" family="ipv6" source address="2001:db8::/64" port port="60000-61000" protocol="udp" nflog group="65535" prefix="caddy-knock ssh 1798761600250" accept`
	if list := strings.Join(got, "\n"); list != strings.TrimSpace(want) {
		t.Errorf("got\n%s\nwant%s", list, want)
	}
	for _, text := range got {
		if r, ok := parseRule(text); !ok || r.String() != text {
			t.Errorf("%s is read as %s, %v", text, r, ok)
		}
	}
	for _, foreign := range []string{
		"", "rule", `rule family="ipv4" source address="192.0.2.2" accept`,
		`rule priority="-999" port port="22" protocol="tcp" drop`,
		`rule priority="-999" port port="22" protocol="tcp" nflog group="5" prefix="caddy-knock gate ssh" drop`,
		`rule priority="-999" port port="22" protocol="tcp" nflog group="65535" prefix="somebody" drop`,
	} {
		if _, ok := parseRule(foreign); ok {
			t.Errorf("%q is taken for ours", foreign)
		}
	}
}

// TestHalfAWindow lists only windows of which all rules stand, and the longest.
func TestHalfAWindow(t *testing.T) {
	p := netip.MustParsePrefix("192.0.2.2/32")
	first, second := time.UnixMilli(1798761600000).UTC(), time.UnixMilli(1798761700000).UTC()
	var texts []string
	for _, r := range (Config{}).windowRules(sshService, p, first) {
		texts = append(texts, r.String())
	}
	key := engine.Key{Service: "ssh", Prefix: p}
	if got := (Config{}).windowsOf(texts[:1], []*knockcore.Service{sshService}); len(got) != 0 {
		t.Errorf("half a window is listed: %v", got)
	}
	texts = append(texts, Config{}.windowRules(sshService, p, second)[0].String())
	if got := (Config{}).windowsOf(texts, []*knockcore.Service{sshService}); !got[key].Equal(first) || len(got) != 1 {
		t.Errorf("one and a half: %v", got)
	}
	texts = append(texts, Config{}.windowRules(sshService, p, second)[1].String())
	if got := (Config{}).windowsOf(texts, []*knockcore.Service{sshService}); !got[key].Equal(second) || len(got) != 1 {
		t.Errorf("two: %v", got)
	}
}

func TestValidate(t *testing.T) {
	for want, c := range map[string]Config{
		"expect -32768 to -2":    {Priority: 10},
		"expect default, ACCEPT": {Target: "drop"},
		"expect the name of":     {Zone: "a b"},
		"a source is not valid":  {Sources: []netip.Prefix{{}}},
		"17 characters at most":  {Zone: "a-zone-with-a-long-name"},
		"come before what":       {Priority: -1},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	for _, r := range (Config{}).windowRules(sshService, netip.MustParsePrefix("192.0.2.2/32"), time.UnixMilli(1798761600250)) {
		f.Add(r.String())
	}
	f.Add(`rule priority="-999" port port="22" protocol="tcp" nflog group="65535" prefix="caddy-knock gate ssh" drop`)
	f.Add(`rule family="ipv4" source NOT address="192.0.2.2" port port="22" protocol="tcp" nflog prefix="caddy-knock x 1" group="65535" accept`)
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := parseRule(text)
		if !ok {
			return
		}
		if again, ok := parseRule(r.String()); ok && again != r {
			t.Errorf("%q is read as %v, and that as %v", text, r, again)
		}
		r.window()
	})
}
