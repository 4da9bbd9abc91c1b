// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestValidate(t *testing.T) {
	for want, c := range map[string]Config{
		"expect nft or legacy":       {Variant: "both"},
		"expect input or prerouting": {Hook: "output"},
		"can't reject":               {Hook: HookPrerouting, RejectAll: true},
		"15 at most":                 {Chain: "A_VERY_LONG_NAME_INDEED"},
		"expect a letter":            {Chain: "-j"},
		"expect 1s to 5s":            {LockWait: time.Minute},
		"not valid":                  {Allow: []netip.Prefix{{}}},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestBaseRules(t *testing.T) {
	services := []*knockcore.Service{
		{Name: "ssh", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 22, High: 22}}},
		{Name: "mosh", Ports: []knockcore.PortRange{{Protocol: knockcore.UDP, Low: 60000, High: 61000}}, Destinations: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}},
	}
	for name, test := range map[string]struct {
		c    Config
		v6   bool
		want string
	}{
		"input": {Config{Allow: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")}, Reject: []string{"ssh"}}, false, `
-i lo -m comment --comment made-by-caddy-knock -j RETURN
-s 10.0.0.0/8 -j RETURN
-p tcp -m tcp --dport 22 --tcp-flags SYN,ACK SYN -j CADDY_KNOCK-ssh
-p udp -m udp --dport 60000:61000 -m conntrack ! --ctstate ESTABLISHED -j CADDY_KNOCK-mosh
-p tcp -m tcp --dport 22 --tcp-flags SYN,ACK SYN -j REJECT --reject-with tcp-reset
-p udp -m udp --dport 60000:61000 -m conntrack ! --ctstate ESTABLISHED -j DROP`},
		"prerouting": {Config{Hook: HookPrerouting, Chain: "K"}, false, `
-i lo -m comment --comment made-by-caddy-knock -j RETURN
-m addrtype --dst-type LOCAL -p tcp -m tcp --dport 22 --tcp-flags SYN,ACK SYN -j K-ssh
-m addrtype --dst-type LOCAL -p udp -m udp --dport 60000:61000 -m conntrack ! --ctstate ESTABLISHED -j K-mosh
-d 172.17.0.0/16 -p udp -m udp --dport 60000:61000 -m conntrack ! --ctstate ESTABLISHED -j K-mosh
-m addrtype --dst-type LOCAL -p tcp -m tcp --dport 22 --tcp-flags SYN,ACK SYN -j DROP
-m addrtype --dst-type LOCAL -p udp -m udp --dport 60000:61000 -m conntrack ! --ctstate ESTABLISHED -j DROP
-d 172.17.0.0/16 -p udp -m udp --dport 60000:61000 -m conntrack ! --ctstate ESTABLISHED -j DROP`},
	} {
		if got := strings.Join(test.c.baseRules(test.v6, services), "\n"); got != strings.TrimSpace(test.want) {
			t.Errorf("%s:\n%s\nwant:%s", name, got, test.want)
		}
	}
}

func TestWindowRule(t *testing.T) {
	p := netip.MustParsePrefix("192.0.2.2/32")
	expires := time.Date(2027, 1, 1, 0, 0, 0, 250e6, time.UTC)
	const want = "-s 192.0.2.2/32 -m time --datestop 2027-01-01T00:00:00 -m comment --comment knock-until-1798761600250 -j ACCEPT"
	if got := windowRule(p, expires, true); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// A window never ends early, and at most a second late: the last second counts.
	if got := windowRule(p, expires.Truncate(time.Second), true); !strings.Contains(got, "2026-12-31T23:59:59") {
		t.Errorf("on the second: %s", got)
	}
	gotP, gotExpires, ok := parseWindowRule(want)
	if gotP != p || !gotExpires.Equal(expires) || !ok {
		t.Errorf("read %v %v %v", gotP, gotExpires, ok)
	}
	for _, bad := range []string{
		"", "-j ACCEPT", "-s", strings.Replace(want, "2027", "2037", 1), strings.Replace(want, "192.0.2.2/32", "0.0.0.0/0", 1) + " -p tcp",
		strings.Replace(want, "knock-until-", "", 1), strings.Replace(want, "ACCEPT", "DROP", 1),
	} {
		if _, _, ok := parseWindowRule(bad); ok {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestForeignRules(t *testing.T) {
	saved := "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:mine - [0:0]\n:CADDY_KNOCK - [0:0]\n-A INPUT -j CADDY_KNOCK\n-A CADDY_KNOCK -i lo -j RETURN\n-A mine -j DROP\nCOMMIT\n"
	if n := (Config{}).foreignRules(saved); n != 2 {
		t.Errorf("%d, want the policy and one rule", n)
	}
}

func FuzzSaved(f *testing.F) {
	f.Add("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j CADDY_KNOCK\nCOMMIT\n")
	f.Add("-A CADDY_KNOCK-ssh -s 192.0.2.2/32 -m time --datestop 2027-01-01T00:00:00 -m comment --comment \"knock-until-1798761600250\" -j ACCEPT")
	f.Add("# Table `filter' is incompatible, use 'nft' tool.")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSaved(text)
		if err != nil {
			return
		}
		for _, rules := range s {
			for _, rule := range rules {
				if p, expires, ok := parseWindowRule(rule); ok && windowRule(p, expires, true) != rule && windowRule(p, expires, false) != rule {
					t.Errorf("%q is read as %v until %v", rule, p, expires)
				}
			}
		}
		Config{}.installScript(false, s, nil, nil)
		Config{}.removeScript(s)
	})
}
