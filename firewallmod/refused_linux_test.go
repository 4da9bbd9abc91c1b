// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// refused starts Caddy with the words before its command, and wants it to end and
// to say why.
func (g *gate) refused(why string, words ...string) {
	g.Helper()
	args := append(words, program.Caddy(g), "run", "--config", g.file)
	cmd := g.host.Command(g.Context(), args...)
	cmd.Env = g.command().Env
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), why) {
		g.Errorf("want %q, got %v:\n%s", why, err, out)
	}
}

// TestRefusesToStart: what keeps the firewall from working fails at load, and says
// what to do.
func TestRefusesToStart(t *testing.T) {
	g := newHost(t, "")
	netlab.Need(t, "setpriv")
	g.refused("no permission to change nftables", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-all")
	if rest := g.host.Run("nft", "list", "ruleset"); rest != "" {
		t.Errorf("left behind:\n%s", rest)
	}
	g.host.RunInput("table inet caddy_knock { chain theirs { type filter hook input priority 0; tcp dport 1 drop; }; }", "nft", "-f", "-")
	before := g.host.Run("nft", "list", "ruleset")
	g.refused("table inet caddy_knock: the table was not made by caddy-knock: choose another name")
	if after := g.host.Run("nft", "list", "ruleset"); after != before {
		t.Errorf("it was touched:\n%s", after)
	}
	g.write(strings.Replace(g.text, "firewall nftables {", "firewall nftables {\n table other\n set filter open", 1))
	g.refused("inet filter open") // there is no such set
	g.write(strings.Replace(g.text, "firewall nftables {", "firewall nftables {\n table other", 1))
	g.start()
	g.shut("with another table")
	h := &gate{T: g.T, lab: g.lab, host: g.host, dir: t.TempDir(), file: g.file}
	h.refused("in use by another caddy-knock")
}

// TestNoWindowNoGrant: when the window cannot be opened, the knock is refused with
// firewall_error, nothing is granted, and log and metric say so.
func TestNoWindowNoGrant(t *testing.T) {
	g := newHost(t, "set filter open")
	g.host.RunInput("table inet filter { set open { type ipv4_addr; flags timeout; size 2; }; }", "nft", "-f", "-")
	g.write(strings.Replace(g.text, "\t\tfirewall nftables {", "\t\tsource udp :62201\n\t\tfirewall nftables {", 1))
	g.start()
	ask := func(address string) (int, string) {
		return g.call(http.MethodPost, "/knock/grants", fmt.Sprintf(`{"client":"alice","service":"ssh","address":%q,"ttl":"10m"}`, address))
	}
	for i := range 4 {
		status, body := ask(fmt.Sprintf("10.0.0.%d", i))
		if i < 2 && status != http.StatusOK {
			t.Errorf("grant %d: %d %s", i, status, body)
		}
		if i >= 2 && (status == http.StatusOK || !strings.Contains(body, "firewall_error") || !strings.Contains(body, "the set is full")) {
			t.Errorf("grant %d, for which there is no room: %d %s", i, status, body)
		}
	}
	// The same by a knock.
	g.alice.Run(program.Client(t), "send", "--client", "alice", "--secret", "a secret of alice, long enough", "192.0.2.1", "2222")
	g.lab.Eventually(20*time.Second, "the knock to be refused", func() bool {
		_, metrics := g.call(http.MethodGet, "/metrics", "")
		return strings.Contains(metrics, `reason="firewall_error"`)
	})
	if log := g.caddy.Log.String(); !strings.Contains(log, "the set is full") {
		t.Error("the log does not say why")
	}
	if _, body := g.call(http.MethodGet, "/knock/grants", ""); strings.Count(body, `"id"`) != 2 {
		t.Errorf("grants: %s", body)
	}
	// When there is room, all is well.
	g.call(http.MethodDelete, "/knock/grants?all=true", "")
	if status, body := ask("10.0.0.3"); status != http.StatusOK {
		t.Errorf("when there is room: %d %s", status, body)
	}
}

// TestForeignLater: also when somebody puts a table of his own in the place of
// ours, nothing is granted without a window.
func TestForeignLater(t *testing.T) {
	g := newGate(t, "")
	g.host.RunInput("delete table inet caddy_knock; table inet caddy_knock { chain theirs { }; }", "nft", "-f", "-")
	g.lab.Eventually(20*time.Second, "the grant to be refused", func() bool {
		status, body := g.call(http.MethodPost, "/knock/grants", `{"client":"alice","service":"ssh","address":"192.0.2.2","ttl":"10m"}`)
		return status != http.StatusOK && strings.Contains(body, "firewall_error") && strings.Contains(body, "not made by caddy-knock")
	})
	g.lab.Eventually(20*time.Second, "health to say so", func() bool {
		status, body := g.call(http.MethodGet, "/knock/health", "")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "firewall nftables: ") && strings.Contains(body, "not made by caddy-knock")
	})
	g.host.Run("nft", "delete", "table", "inet", "caddy_knock")
	g.lab.Eventually(20*time.Second, "health to be well", func() bool {
		status, _ := g.call(http.MethodGet, "/knock/health", "")
		return status == http.StatusOK
	})
	g.lab.Eventually(20*time.Second, "the gate to stand again", func() bool {
		return g.stranger.Probe("tcp", "198.51.100.1:2222") == netlab.Filtered
	})
	g.grant("192.0.2.2", "10m")
	g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
}

// TestHooksAndVerdicts: with hook input, ports that the host forwards stay open and
// the log warns; services that reject look like closed ports.
func TestHooksAndVerdicts(t *testing.T) {
	g := newHost(t, "hook input\n\t\t\treject all")
	netlab.Need(t, "nmap")
	box := g.lab.NS("container")
	g.host.Forward()
	g.stranger.DefaultRoute("198.51.100.1")
	g.lab.Link(g.host, []string{"172.17.0.1/24"}, box, []string{"172.17.0.2/24"})
	box.DefaultRoute("172.17.0.1")
	box.Echo("tcp", "172.17.0.2:80")
	g.host.RunInput("table ip docker { chain pre { type nat hook prerouting priority -100; fib daddr type local tcp dport 8080 dnat to 172.17.0.2:80; }; }", "nft", "-f", "-")
	g.text = strings.Replace(g.text, "udp/2222", "udp/2222 tcp/8080", 1)
	g.write(g.text)
	g.start()
	warned := func() bool {
		return strings.Contains(g.caddy.Log.String(), "such as those published by Docker: they stay open to everybody")
	}
	if !warned() {
		t.Error("no warning")
	}
	if got := g.stranger.ProbeFor("tcp", "198.51.100.1:8080", netlab.Open); got != netlab.Open {
		t.Errorf("with hook input the published port is %s", got)
	}
	scan := func(want ...string) {
		t.Helper()
		out := g.stranger.Run("nmap", "-n", "-Pn", "-sS", "--max-retries", "1", "-p", "2222,2223,8080", "-oG", "-", "198.51.100.1")
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("nmap does not say %s:\n%s", w, out)
			}
		}
	}
	scan("2222/closed/tcp", "2223/closed/tcp", "8080/open/tcp")
	g.write(strings.Replace(g.text, "hook input", "hook prerouting", 1))
	g.host.Run(program.Caddy(t), "reload", "--config", g.file, "--address", g.admin)
	scan("2222/closed/tcp", "2223/closed/tcp", "8080/closed/tcp")
}
