// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// gate is a built Caddy that guards a host in a namespace, and two other hosts.
type gate struct {
	*testing.T
	lab                    *netlab.Lab
	host, alice, stranger  *netlab.NS
	dir, file, admin, text string
	caddy                  *program.Process
}

func newGate(t *testing.T, options string) *gate {
	t.Helper()
	g := newHost(t, options)
	g.start()
	return g
}

// newHost is a gate whose Caddy does not run yet.
func newHost(t *testing.T, options string) *gate {
	t.Helper()
	t.Parallel()
	netlab.Need(t, "nft")
	g := &gate{T: t, lab: netlab.New(t), dir: t.TempDir(), admin: "127.0.0.1:2019"}
	g.host, g.alice, g.stranger = g.lab.NS("host"), g.lab.NS("alice"), g.lab.NS("stranger")
	g.lab.Link(g.host, []string{"192.0.2.1/24", "2001:db8:1::1/64"}, g.alice, []string{"192.0.2.2/24", "2001:db8:1::2/64"})
	g.lab.Link(g.host, []string{"198.51.100.1/24", "2001:db8:2::1/64"}, g.stranger, []string{"198.51.100.2/24", "2001:db8:2::2/64"})
	for _, address := range []string{"0.0.0.0:2222", "[::]:2222"} {
		g.host.Echo("tcp", address)
		g.host.Echo("udp", address)
	}
	g.text = fmt.Sprintf(`{
	admin %s
	log {
		level INFO
	}
	knock {
		client alice {
			secret "a secret of alice, long enough"
			services ssh
		}
		service ssh tcp/2222 udp/2222 {
			firewall nftables
		}
		firewall nftables {
			%s
		}
	}
}
`, g.admin, options)
	g.file = filepath.Join(g.dir, "Caddyfile")
	g.write(g.text)
	return g
}

func (g *gate) write(text string) {
	g.Helper()
	if err := os.WriteFile(g.file, []byte(text), 0o600); err != nil {
		g.Fatal(err)
	}
}

func (g *gate) start() {
	g.Helper()
	g.startAs()
}

// startAs starts Caddy by another program, such as one that takes rights away.
func (g *gate) startAs(by ...string) {
	g.Helper()
	cmd := g.command("run", "--config", g.file)
	at := slices.Index(cmd.Args, program.Caddy(g.T))
	cmd.Args = slices.Insert(cmd.Args, at, by...)
	g.caddy = program.Start(g.T, cmd)
	g.caddy.Await(g.T, "the admin API", func() bool {
		conn, err := g.host.Dial("tcp", g.admin, time.Second)
		if err != nil {
			return false
		}
		_ = conn.Close()
		status, _ := g.call(http.MethodGet, "/knock/status", "")
		return status == http.StatusOK
	})
}

// command is a command of Caddy on the host.
func (g *gate) command(args ...string) *exec.Cmd {
	cmd := g.host.Command(context.Background(), append([]string{program.Caddy(g.T)}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+filepath.Join(g.dir, "data"), "XDG_CONFIG_HOME="+filepath.Join(g.dir, "config"))
	cmd.Dir = g.dir
	return cmd
}

// call asks the admin API from within the host.
func (g *gate) call(method, path, body string) (int, string) {
	g.Helper()
	client := http.Client{Transport: program.Persistent(&http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return g.host.Dial("tcp", g.admin, 5*time.Second)
		},
	})}
	req, err := http.NewRequestWithContext(g.Context(), method, "http://"+g.admin+path, strings.NewReader(body))
	if err != nil {
		g.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func (g *gate) grant(address, ttl string) string {
	g.Helper()
	status, body := g.call(http.MethodPost, "/knock/grants", fmt.Sprintf(`{"client":"alice","service":"ssh","address":%q,"ttl":%q}`, address, ttl))
	if status != http.StatusOK {
		g.Fatalf("granting: %d %s", status, body)
	}
	var made struct{ ID string }
	if err := json.Unmarshal([]byte(body), &made); err != nil {
		g.Fatal(err)
	}
	return made.ID
}

func (g *gate) shut(when string) {
	g.Helper()
	for _, to := range []string{"192.0.2.1:2222", "[2001:db8:1::1]:2222"} {
		if state := g.alice.Probe("tcp", to); state == netlab.Open {
			g.Errorf("%s: alice reaches %s", when, to)
		}
	}
	for _, to := range []string{"198.51.100.1:2222", "[2001:db8:2::1]:2222"} {
		if state := g.stranger.Probe("tcp", to); state == netlab.Open {
			g.Errorf("%s: the stranger reaches %s", when, to)
		}
	}
}

func TestWindowsFollowGrants(t *testing.T) {
	g := newGate(t, "on_exit keep")
	g.shut("at first")
	id4, id6 := g.grant("192.0.2.2", "10m"), g.grant("2001:db8:1::/64", "10m")
	for _, network := range []string{"tcp", "udp"} {
		g.alice.Expect(network, "192.0.2.1:2222", netlab.Open)
		g.alice.Expect(network, "[2001:db8:1::1]:2222", netlab.Open)
	}
	if g.stranger.Probe("tcp", "198.51.100.1:2222") == netlab.Open {
		t.Error("the stranger is in too")
	}
	// A reload, and one that fails, change nothing.
	g.write(strings.Replace(g.text, "level INFO", "level WARN", 1))
	g.host.Run(program.Caddy(t), "reload", "--config", g.file, "--address", g.admin)
	g.write(strings.Replace(g.text, "services ssh", "services nothing", 1))
	if out, err := g.host.Try(program.Caddy(t), "reload", "--config", g.file, "--address", g.admin); err == nil || !strings.Contains(out, "Caddyfile:7") {
		t.Errorf("a bad configuration was loaded, or without saying where it is bad: %v %s", err, out)
	}
	g.write(g.text)
	g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
	// Killed: closed for strangers, and what is open runs out by itself.
	g.caddy.Kill()
	if g.stranger.Probe("tcp", "198.51.100.1:2222") == netlab.Open {
		t.Error("a crash opened the service")
	}
	g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
	g.start()
	g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
	for _, id := range []string{id4, id6} {
		if status, body := g.call(http.MethodDelete, "/knock/grants?id="+id, ""); status != http.StatusOK || !strings.Contains(body, `"revoked":1`) {
			t.Fatalf("revoking: %d %s", status, body)
		}
	}
	g.shut("after revoking")
	// A short one ends on time without anybody, also if Caddy is killed.
	g.grant("192.0.2.2", "2s")
	g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
	g.caddy.Kill()
	g.lab.Eventually(20*time.Second, "the kernel to close the window", func() bool {
		return g.alice.Probe("tcp", "192.0.2.1:2222") != netlab.Open
	})
	g.shut("at the end")
}

func TestGateHeals(t *testing.T) {
	g := newGate(t, "")
	g.grant("192.0.2.2", "10m")
	g.host.Run("nft", "flush", "ruleset")
	g.lab.Eventually(20*time.Second, "the gate to stand again", func() bool {
		return g.stranger.Probe("tcp", "198.51.100.1:2222") != netlab.Open
	})
	g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
	if status, body := g.call(http.MethodGet, "/metrics", ""); status != http.StatusOK || !strings.Contains(body, "caddy_knock_firewall_heals_total") {
		t.Errorf("metrics: %d", status)
	}
}

func TestExitModes(t *testing.T) {
	for mode, want := range map[string]struct{ alice, stranger netlab.State }{
		"close":  {netlab.Filtered, netlab.Filtered},
		"keep":   {netlab.Open, netlab.Filtered},
		"remove": {netlab.Open, netlab.Open},
	} {
		t.Run(mode, func(t *testing.T) {
			g := newGate(t, "on_exit "+mode)
			g.grant("192.0.2.2", "10m")
			g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
			if status, body := g.call(http.MethodPost, "/stop", ""); status != http.StatusOK {
				t.Fatal(status, body)
			}
			<-g.caddy.Ended
			g.alice.Expect("tcp", "192.0.2.1:2222", want.alice)
			g.stranger.Expect("tcp", "198.51.100.1:2222", want.stranger)
		})
	}
}
