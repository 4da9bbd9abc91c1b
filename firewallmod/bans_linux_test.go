// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

const banConfig = `{
	admin 127.0.0.1:2019
	log {
		level INFO
	}
	knock {
		client alice {
			secret "a secret of alice, long enough"
			api_key "an API key of alice, long enough"
			services ssh web
		}
		service ssh tcp/2222 {
			firewall nftables
		}
		service web tcp/8080 {
			open_for 1h
		}
		source udp :62201
		bans {
			failures 3
			within 1h
			for 1h
			firewall nftables
			ports tcp/8080
		}
		firewall nftables {
			on_exit keep
		}
	}
}
http://:8080 {
	knock
	respond "site"
}
`

const enforced = "\t\t\tfirewall nftables\n\t\t\tports tcp/8080\n"

// banGate is a host whose web site bans whoever comes with wrong keys.
func banGate(t *testing.T) *gate {
	program.Need(t, "curl")
	g := newHost(t, "")
	g.text = banConfig
	g.write(g.text)
	g.start()
	return g
}

const site = "198.51.100.1:8080" // as the stranger sees it

// post knocks by HTTP from a namespace, and returns the status.
func (g *gate) post(from *netlab.NS, to, key string) string {
	g.Helper()
	out, _ := from.Try("curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-H", "X-Api-Key: "+key, "http://"+to+"/knock")
	return out
}

// offend comes three times with a wrong key.
func (g *gate) offend() {
	g.Helper()
	for range 3 {
		if status := g.post(g.stranger, site, "wrong"); status != "401" {
			g.Fatalf("a wrong key: %s", status)
		}
	}
}

func (g *gate) wantSite(from *netlab.NS, to string, want netlab.State, when string) {
	g.Helper()
	if got := from.ProbeFor("tcp", to, want); got != want {
		g.Errorf("%s: the site is %s, want %s", when, got, want)
	}
}

func (g *gate) reload(text string) error {
	g.Helper()
	g.write(text)
	out, err := g.command("reload", "--config", g.file, "--address", g.admin).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// knock sends a datagram of alice's for a port, from the stranger's address.
func (g *gate) knock(port string) {
	g.Helper()
	g.stranger.Run(program.Client(g.T), "send", "--client", "alice", "--secret", "a secret of alice, long enough", "198.51.100.1", port)
}

// TestFirewallBans: a banned address gets no packet to the ports that were named
// for that, whatever becomes of Caddy and the table, until the ban is over, is
// lifted, or a knock shows who is there.
func TestFirewallBans(t *testing.T) {
	g := banGate(t)
	conn, err := g.stranger.Dial("tcp", site, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	answers := bufio.NewReader(conn)
	for i := range 4 { // on one connection, which a ban doesn't end by itself
		fmt.Fprint(conn, "POST /knock HTTP/1.1\r\nHost: host\r\nX-Api-Key: wrong\r\nContent-Length: 0\r\n\r\n")
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusUnauthorized || resp.Close != (i == 3) {
			t.Errorf("wrong key %d: %s, the connection ends: %v", i+1, resp.Status, resp.Close)
		}
		_, _ = answers.Discard(int(resp.ContentLength))
	}
	g.wantSite(g.stranger, site, netlab.Filtered, "banned")
	g.wantSite(g.alice, "192.0.2.1:8080", netlab.Open, "somebody else is banned")
	if out, err := g.command("knock", "bans").CombinedOutput(); err != nil || !strings.Contains(string(out), "198.51.100.2") {
		t.Errorf("bans: %s %v", out, err)
	}
	if _, body := g.call(http.MethodGet, "/metrics", ""); !strings.Contains(body, `caddy_knock_firewall_packets_total{firewall="nftables",service="",verdict="banned"}`) {
		t.Error("no metric counts what bans stopped")
	}

	// A knock by datagram is heard, and its grant is stronger than the ban.
	g.knock("8080")
	g.lab.Eventually(20*time.Second, "the knock to count", func() bool { return g.stranger.Probe("tcp", site) == netlab.Open })
	if status := g.post(g.stranger, site, "an API key of alice, long enough"); status != "200" {
		t.Errorf("a right key with a grant: %s", status)
	}
	granted := func(when string) {
		t.Helper()
		g.wantSite(g.stranger, site, netlab.Open, when)
	}

	// Neither reloads nor a crash nor somebody's flush change anything of that.
	if err := g.reload(strings.Replace(g.text, "INFO", "WARN", 1)); err != nil {
		t.Fatal(err)
	}
	granted("reload")
	if err := g.reload(strings.Replace(g.text, "services ssh web", "services nothing", 1)); err == nil {
		t.Error("a bad configuration was loaded")
	}
	granted("bad reload")
	// One that fails late, when the firewall may have lost bans and windows already.
	for range 4 {
		without := strings.Replace(g.text, enforced, "", 1) + "http://:2222 {\n\trespond \"a port that is taken\"\n}\n"
		if err := g.reload(without); err == nil || !strings.Contains(err.Error(), "2222") {
			t.Fatalf("a configuration that can't start: %v", err)
		}
		if banned := g.host.Run("nft", "list", "set", "inet", "caddy_knock", "banned.addresses-4"); !strings.Contains(banned, "198.51.100.2") {
			t.Fatalf("after a reload that failed:\n%s", banned)
		}
		granted("a reload that failed late")
	}
	if err := g.reload(strings.Replace(g.text, enforced, "", 1)); err != nil {
		t.Fatal(err)
	}
	if text := g.host.Run("nft", "list", "table", "inet", "caddy_knock"); strings.Contains(text, "banned") {
		t.Errorf("without the option:\n%s", text)
	}
	if err := g.reload(g.text); err != nil {
		t.Fatal(err)
	}
	granted("a reload that brings bans")
	g.caddy.Kill()
	g.start()
	granted("kill -9")
	g.host.Run("nft", "flush", "ruleset")
	g.lab.Eventually(20*time.Second, "the table to be back", func() bool {
		_, err := g.host.Try("nft", "list", "chain", "inet", "caddy_knock", "bans")
		return err == nil
	})
	granted("flush")
	if status, body := g.call(http.MethodDelete, "/knock/grants?all=true", ""); status != http.StatusOK {
		t.Fatalf("revoking: %s", body)
	}
	g.wantSite(g.stranger, site, netlab.Filtered, "the grant has ended, the ban has not")

	g.caddy.Kill()
	g.wantSite(g.stranger, site, netlab.Filtered, "Caddy is dead")
	g.start()
	g.wantSite(g.stranger, site, netlab.Filtered, "Caddy is back")
	g.host.Run("nft", "flush", "ruleset")
	g.lab.Eventually(20*time.Second, "the ban to be back", func() bool { return g.stranger.Probe("tcp", site) == netlab.Filtered })

	if out, err := g.command("knock", "bans", "--lift", "198.51.100.0/24").CombinedOutput(); err != nil || string(out) != "1 lifted\n" {
		t.Errorf("lifting: %s %v", out, err)
	}
	g.wantSite(g.stranger, site, netlab.Open, "lifted")
}

// TestFirewallBansEnd: the kernel ends a ban, also if nobody is left.
func TestFirewallBansEnd(t *testing.T) {
	g := banGate(t)
	if err := g.reload(strings.Replace(g.text, "\t\t\tfor 1h", "\t\t\tfor 6s", 1)); err != nil {
		t.Fatal(err)
	}
	g.offend()
	g.caddy.Kill()
	g.wantSite(g.stranger, site, netlab.Filtered, "banned, and Caddy is dead")
	g.lab.Eventually(30*time.Second, "the kernel to end the ban", func() bool { return g.stranger.Probe("tcp", site) == netlab.Closed })
	g.start()
	g.wantSite(g.stranger, site, netlab.Open, "over")
	g.offend() // a second ban, twice as long
	g.wantSite(g.stranger, site, netlab.Filtered, "banned again")
	g.lab.Eventually(30*time.Second, "the ban to end", func() bool { return g.stranger.Probe("tcp", site) == netlab.Open })
}

// TestReloadGivesFirewall: who holds a grant goes on when a reload closes the
// service for everybody else.
func TestReloadGivesFirewall(t *testing.T) {
	g := newHost(t, "")
	text := strings.Replace(g.text, "service ssh tcp/2222 udp/2222 {\n\t\t\tfirewall nftables\n", "service ssh tcp/2222 udp/2222 {\n\t\t\topen_for 1h\n", 1)
	g.write(text)
	g.start()
	g.grant("192.0.2.2", "1h")
	if err := g.reload(g.text); err != nil {
		t.Fatal(err)
	}
	if got := g.alice.ProbeFor("tcp", "192.0.2.1:2222", netlab.Open); got != netlab.Open {
		t.Errorf("alice, who holds a grant: %s", got)
	}
	if got := g.stranger.ProbeFor("tcp", "198.51.100.1:2222", netlab.Filtered); got != netlab.Filtered {
		t.Errorf("a stranger: %s", got)
	}
}
