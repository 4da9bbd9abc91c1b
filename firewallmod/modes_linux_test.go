// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// eachOther runs a test with each of the firewalls that are not ours. env is what
// their tools need.
func eachOther(t *testing.T, test func(g *gate, firewall string, env []string)) {
	for _, firewall := range []string{"iptables", "ipset", "firewalld"} {
		t.Run(firewall, func(t *testing.T) {
			needs := []string{"ipset", "iptables"}
			if firewall == "firewalld" {
				needs = []string{"firewalld", "firewall-cmd", "dbus-daemon"}
			}
			for _, name := range needs {
				program.Need(t, name)
			}
			g := newHost(t, "BUS\non_exit remove")
			bus, env := "", []string(nil)
			if firewall == "firewalld" {
				address := startFirewalld(g)
				bus, env = "bus "+address, []string{"env", "DBUS_SYSTEM_BUS_ADDRESS=" + address}
			}
			g.text = strings.NewReplacer("BUS", bus, "firewall nftables", "firewall "+firewall).Replace(g.text)
			test(g, firewall, env)
		})
	}
}

// TestFramesBehindOtherFirewalls is the gate mode "knock, firewall and auth": the
// port is closed, opens for the address that knocked, asks for a frame there, and
// closes behind it.
func TestFramesBehindOtherFirewalls(t *testing.T) {
	eachOther(t, func(g *gate, firewall string, _ []string) {
		g.text = strings.Replace(g.text, "services ssh", "services ssh shell", 1)
		g.text = strings.Replace(g.text, "\n\t\tservice ssh", `
		source udp :62201
		service shell tcp/2223 {
			require_session
			close_after_auth
			firewall `+firewall+`
		}
		service ssh`, 1)
		g.text = strings.TrimSuffix(strings.TrimSpace(g.text), "}") + `	layer4 {
		:2223 {
			route {
				knock shell {
					admit {
						knock_relay 127.0.0.1:2222
					}
				}
			}
		}
	}
}
`
		g.write(g.text)
		g.start()
		secret := filepath.Join(g.dir, "alice.key")
		if err := os.WriteFile(secret, []byte("a secret of alice, long enough\n"), 0o600); err != nil {
			g.Fatal(err)
		}
		for _, host := range []string{"192.0.2.1", "[2001:db8:1::1]"} {
			target := host + ":2223"
			if state := g.alice.Probe("tcp", target); state == netlab.Open {
				g.Errorf("%s is open before the knock", target)
			}
			home := filepath.Join(g.dir, "home"+host)
			client := func(args ...string) []string {
				return append([]string{"env", "HOME=" + home, "XDG_CONFIG_HOME=" + home, program.Client(g.T)}, args...)
			}
			g.alice.Run(client("profile", "add", "alice", "--server", target, "--secret-file", secret, "--knock", "udp")...)
			out, err := g.alice.TryInput("hello through the frame", client("connect", "alice@"+target)...)
			if err != nil || out != "hello through the frame" {
				g.Errorf("%s: %v, %q", target, err, out)
			}
			g.lab.Eventually(20*time.Second, "the window to close behind the frame", func() bool {
				return g.alice.Probe("tcp", target) != netlab.Open
			})
			if state := g.alice.Probe("tcp", host+":2222"); state == netlab.Open {
				g.Errorf("%s: the relay's own service is open", host)
			}
		}
		// A window alone lets nobody to the service.
		cred := &knockcore.Credential{Client: &knockcore.Client{ID: "alice"}, Secret: knockcore.NewSecret([]byte("a secret of alice, long enough"))}
		cred.MAC = knockcore.NewMAC(cred.Secret.Bytes())
		d := wire.Datagram{Method: knockcore.MethodUDP, Port: 2223, Time: time.Now().UnixMilli(), Session: []byte("0123456789abcdef")}
		b, err := d.Seal(cred)
		if err != nil {
			g.Fatal(err)
		}
		knock, err := g.alice.Dial("udp", "192.0.2.1:62201", time.Second)
		if err != nil {
			g.Fatal(err)
		}
		defer knock.Close()
		_, _ = knock.Write(b)
		g.lab.Eventually(20*time.Second, "the knock to open", func() bool { return g.alice.Probe("tcp", "192.0.2.1:2223") == netlab.Open })
		if state := g.stranger.Probe("tcp", "198.51.100.1:2223"); state == netlab.Open {
			g.Error("the stranger reaches the port meanwhile")
		}
		c, err := g.alice.Dial("tcp", "192.0.2.1:2223", 5*time.Second)
		if err != nil {
			g.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
		if n, _ := c.Read(make([]byte, 10)); n > 0 {
			g.Error("who has no frame meets the service")
		}
	})
}

// TestPrintOthers: what is printed closes the services before Caddy starts, which
// then takes the rules over.
func TestPrintOthers(t *testing.T) {
	eachOther(t, func(g *gate, firewall string, env []string) {
		g.write(g.text)
		text := g.print("--config", g.file)
		load := func() {
			g.Helper()
			script := filepath.Join(g.dir, "closed.sh")
			if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
				g.Fatal(err)
			}
			g.host.Run(append(env, script)...)
			if firewall == "firewalld" {
				g.host.Run(append(env, "firewall-cmd", "--reload")...)
			}
		}
		if state := g.alice.ProbeFor("tcp", "192.0.2.1:2222", netlab.Open); state != netlab.Open {
			g.Fatalf("%s before anything", state)
		}
		load()
		g.shut("before Caddy")
		load() // the boot unit, once more
		g.shut("before Caddy, again")
		g.start()
		g.shut("Caddy runs")
		g.grant("192.0.2.2", "10m")
		if got := g.alice.ProbeFor("tcp", "192.0.2.1:2222", netlab.Open); got != netlab.Open {
			g.Errorf("after the grant: %s", got)
		}
		load()
		g.lab.Eventually(30*time.Second, "the window to be back", func() bool { return g.alice.Probe("tcp", "192.0.2.1:2222") == netlab.Open })
		if got := g.stranger.Probe("tcp", "198.51.100.1:2222"); got == netlab.Open {
			g.Error("open for the stranger")
		}
		if status, body := g.call(http.MethodPost, "/stop", ""); status != http.StatusOK {
			g.Fatal(status, body)
		}
		<-g.caddy.Ended
		if state := g.stranger.ProbeFor("tcp", "198.51.100.1:2222", netlab.Open); state != netlab.Open {
			g.Errorf("Caddy did not take the rules over: the port is %s after on_exit remove", state)
		}
	})
}

// TestPrintNothing: where no rule is ours, the command says so.
func TestPrintNothing(t *testing.T) {
	g := newHost(t, "")
	for firewall, want := range map[string]string{"ipset {\nset mine\n}": "sets of yours", "exec {\nopen /bin/true\nclose /bin/true\n}": "no firewall of the configuration has rules to print"} {
		name, _, _ := strings.Cut(firewall, " ")
		text := strings.Replace(g.text, "\t\tfirewall nftables {\n\t\t\t\n\t\t}\n", "\t\tfirewall "+firewall+"\n", 1)
		g.write(strings.ReplaceAll(text, "firewall nftables", "firewall "+name))
		out, err := g.command("knock", "firewall", "print", "--config", g.file).CombinedOutput()
		if _, failed := err.(*exec.ExitError); !failed || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s", name, err, out)
		}
	}
}
