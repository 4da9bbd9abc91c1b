// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// execGate is a gate made of iptables: one rule that drops, one for each window.
const execGate = `firewall exec {
			setup /bin/sh -c "for t in iptables ip6tables; do $t -w -C INPUT -p $1 --dport $2 -j DROP 2>/dev/null || $t -w -A INPUT -p $1 --dport $2 -j DROP || exit 1; done" setup {knock.protocol} {knock.port}
			open iptables -w -I INPUT -s {knock.prefix} -p {knock.protocol} --dport {knock.port} -j ACCEPT
			close iptables -w -D INPUT -s {knock.prefix} -p {knock.protocol} --dport {knock.port} -j ACCEPT
			open_ipv6 ip6tables -w -I INPUT -s {knock.prefix} -p {knock.protocol} --dport {knock.port} -j ACCEPT
			close_ipv6 ip6tables -w -D INPUT -s {knock.prefix} -p {knock.protocol} --dport {knock.port} -j ACCEPT
			on_exit keep
		}`

func TestExec(t *testing.T) {
	netlab.Need(t, "iptables", "ip6tables")
	g := newHost(t, "")
	g.text = strings.NewReplacer("firewall nftables {\n\t\t\t\n\t\t}", execGate, "firewall nftables", "firewall exec").Replace(g.text)
	g.write(g.text)
	g.start()
	g.shut("at first")
	g.grant("192.0.2.2", "10m")
	id := g.grant("2001:db8:1::/64", "10m")
	g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
	g.alice.Expect("udp", "[2001:db8:1::1]:2222", netlab.Open)
	if status, body := g.call(http.MethodDelete, "/knock/grants?id="+id, ""); status != http.StatusOK {
		t.Fatal(body)
	}
	if g.alice.Probe("tcp", "[2001:db8:1::1]:2222") == netlab.Open {
		t.Error("revoking closed nothing")
	}
	// A renewed grant moves the end; what is open when Caddy is killed closes when it
	// is over, once.
	g.grant("192.0.2.2", "6s")
	over := time.Now().Add(6 * time.Second)
	if rules := g.host.Run("iptables", "-S", "INPUT"); strings.Count(rules, "192.0.2.2/32") != 2 { // tcp and udp
		t.Errorf("rules: %s", rules)
	}
	g.caddy.Kill()
	g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
	time.Sleep(time.Until(over))
	g.start()
	g.lab.Eventually(20*time.Second, "the commands to close the window", func() bool {
		return !strings.Contains(g.host.Run("iptables", "-S", "INPUT"), "192.0.2.2")
	})
	g.shut("at the end")
	if rules := g.host.Run("iptables", "-S", "INPUT"); strings.Count(rules, "DROP") != 2 {
		t.Errorf("rules: %s", rules)
	}
	if status, body := g.call(http.MethodGet, "/metrics", ""); status != http.StatusOK || !strings.Contains(body, `caddy_knock_commands_total{action="close",result="ok"}`) {
		t.Errorf("metrics: %d", status)
	}
}

func TestExecErrors(t *testing.T) {
	program.Need(t, "true")
	config := func(options string) string {
		return "{\n\tknock {\n\t\tfirewall exec {\n\t\t\t" + options + "\n\t\t}\n\t}\n}\n"
	}
	for options, want := range map[string]string{
		"timeout 3s":                "no command to open with",
		"open":                      "takes a program",
		"open true {knock.adress}":  "unknown placeholder",
		"open true x{knock.client}": "an argument of its own",
		"open true\n\t\t\tsetup true {knock.address}": "nobody has knocked",
		"open true\n\t\t\ton_exit never":              "expect close, keep or remove",
		"open true\n\t\t\tmax_running 0":              "positive whole number",
		"open true\n\t\t\tcolour red":                 "unknown option",
	} {
		if _, err := apptest.Adapt(config(options)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Caddyfile:") {
			t.Errorf("%s: %v", options, err)
		}
	}
	err := apptest.TryLoad(t, strings.Replace(config("open no-such-program-here"), "knock {", "admin off\n\tknock {\n\t\tservice ssh tcp/22 {\n\t\t\tfirewall exec\n\t\t}\n\t\tstore memory", 1))
	if err == nil || !strings.Contains(err.Error(), "no-such-program-here") {
		t.Errorf("a program that is not there: %v", err)
	}
}
