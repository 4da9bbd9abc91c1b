// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// TestForeignDrop reads what the real nft lists, of tables that let a port in by
// itself, in a range, in a set, by another chain, or not.
func TestForeignDrop(t *testing.T) {
	netlab.Need(t, "nft")
	for rule, found := range map[string]bool{
		"tcp dport 22 accept":                 false,
		"tcp dport 20-30 accept":              false,
		"tcp dport { 80, 20-25 } accept":      false,
		"th dport 22 accept":                  false,
		"tcp dport 22 jump more":              false,
		"tcp dport 22 drop":                   true,
		"tcp sport 22 accept":                 true,
		"udp dport 22 accept":                 true,
		"tcp dport { 80, 443 } accept":        true,
		"ct state established,related accept": true,
	} {
		t.Run(rule, func(t *testing.T) {
			host := netlab.New(t).NS("host")
			host.RunInput("table inet fw {\nchain more {\n}\nchain in {\ntype filter hook input priority 0; policy drop;\n"+rule+"\n}\n}\n", "nft", "-f", "-")
			rules, err := parseRuleset([]byte(host.Run("nft", "-j", "list", "ruleset")))
			if err != nil {
				t.Fatal(err)
			}
			s := &knockcore.Service{Name: "ssh", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 22, High: 22}}}
			got := rules.dropping(&Plan{Services: []*knockcore.Service{s}})
			if (len(got) > 0) != found {
				t.Errorf("%+v", got)
			}
			ours := &Plan{Services: []*knockcore.Service{s}, Firewalls: map[string]Firewall{"f": {Module: "nftables", Table: "fw"}}}
			if got := rules.dropping(ours); len(got) > 0 {
				t.Errorf("our own table: %+v", got)
			}
		})
	}
}

func TestGuardedBy(t *testing.T) {
	for config, guarded := range map[string]string{
		`{"apps":{"layer4":{"servers":{"a":{"routes":[{"handle":[{"handler":"knock","services":["ssh"]}]}]}}}}}`: "[true false]",
		`{"apps":{"http":{"servers":{"a":{"routes":[{"match":[{"knocked":{"services":["web"]}}]}]}}}}}`:          "[false true]",
		`{"apps":{"http":{"servers":{"a":{"listener_wrappers":[{"wrapper":"knock","service":"web"}]}}}}}`:        "[false true]",
		`{"apps":{"layer4":{"x":[{"match":[{"knocked":{}}]}]}}}`:                                                 "[true true]",
		`{"apps":{"knock":{"services":[{"name":"ssh"}]}}}`:                                                       "[false false]",
		`nonsense`: "[false false]",
	} {
		by := GuardedBy([]byte(config))
		if got := fmt.Sprint([]bool{by("ssh"), by("web")}); got != guarded {
			t.Errorf("%s: %s, want %s", config, got, guarded)
		}
	}
}

// TestReportOfNothing: an empty plan is no reason to fail.
func TestReportOfNothing(t *testing.T) {
	netlab.Need(t, "nft")
	var r *Report
	netlab.New(t).NS("host").Do(func() { r = Run(context.Background(), &Plan{JSON: []byte("{}")}) })
	if !r.OK || len(r.Proofs) != 0 {
		t.Errorf("%+v", r)
	}
	if r := Run(context.Background(), &Plan{JSON: []byte("nonsense")}); r.OK {
		t.Error("a configuration that can't be read is fine")
	}
}
