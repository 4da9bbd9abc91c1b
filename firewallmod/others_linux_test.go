// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// startFirewalld runs a D-Bus daemon and a firewalld in the namespace and returns
// the address of the bus. The zone accepts all, so that what is closed is ours.
func startFirewalld(g *gate) (bus string) {
	g.Helper()
	dir, err := os.MkdirTemp("/run", "knock-gate-")
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, text := range map[string]string{
		"etc/firewalld.conf":   "DefaultZone=public\nFirewallBackend=nftables\n",
		"etc/zones/public.xml": `<?xml version="1.0" encoding="utf-8"?><zone target="ACCEPT"><short>public</short></zone>`,
		"bus.conf": `<busconfig><type>system</type><listen>unix:path=` + dir + `/bus</listen><auth>EXTERNAL</auth>
			<policy user="root"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow send_type="method_return"/><allow send_type="error"/></policy></busconfig>`,
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			g.Fatal(err)
		}
	}
	bus = "unix:path=" + dir + "/bus"
	program.Start(g.T, exec.Command("dbus-daemon", "--config-file="+dir+"/bus.conf", "--nofork", "--nopidfile")).Await(g.T, "the bus", func() bool {
		_, err := os.Stat(dir + "/bus")
		return err == nil
	})
	cmd := g.host.Command(g.Context(), "firewalld", "--nofork", "--nopid", "--system-config", dir+"/etc", "--log-target", "console")
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+bus)
	program.Start(g.T, cmd).Await(g.T, "firewalld", func() bool {
		out, _ := g.host.Try("env", "DBUS_SYSTEM_BUS_ADDRESS="+bus, "timeout", "5", "firewall-cmd", "--state")
		return strings.Contains(out, "running") && !strings.Contains(out, "not running")
	})
	return bus
}

// TestFirewalld is TestOtherFirewalls with firewalld, whose reload takes windows
// away.
func TestFirewalld(t *testing.T) {
	for _, name := range []string{"firewalld", "firewall-cmd", "dbus-daemon"} {
		program.Need(t, name)
	}
	g := newHost(t, "BUS\non_exit remove")
	bus := startFirewalld(g)
	g.text = strings.ReplaceAll(g.text, "BUS", "bus "+bus)
	g.startWith("firewalld")
	testOtherFirewall(g, []string{"env", "DBUS_SYSTEM_BUS_ADDRESS=" + bus, "firewall-cmd", "--reload"})
}

// newGateOf is newGate with another firewall than nftables, and a source of
// knocks.
func newGateOf(t *testing.T, firewall, options string) *gate {
	t.Helper()
	g := newHost(t, options)
	g.startWith(firewall)
	return g
}

func (g *gate) startWith(firewall string) {
	g.Helper()
	g.text = strings.ReplaceAll(g.text, "firewall nftables", "firewall "+firewall)
	g.text = strings.Replace(g.text, "\n\t\tservice ssh", "\n\t\tsource udp :62201\n\t\tservice ssh", 1)
	g.write(g.text)
	g.start()
}

// TestOtherFirewalls runs the built Caddy with the firewalls that are not ours:
// windows follow grants, a reload changes nothing, a flush is mended, and what is
// open when Caddy is killed runs out.
func TestOtherFirewalls(t *testing.T) {
	for firewall, flush := range map[string][]string{
		"iptables": {"iptables", "-w", "-F"},
		"ipset":    {"ip6tables", "-w", "-F"},
	} {
		t.Run(firewall, func(t *testing.T) {
			for _, name := range append([]string{"ipset"}, flush[0]) {
				program.Need(t, name)
			}
			testOtherFirewall(newGateOf(t, firewall, "on_exit remove"), flush)
		})
	}
}

func testOtherFirewall(g *gate, flush []string) {
	g.shut("at first")
	// Gate mode knock-firewall-only, with the real client: each address for itself.
	secret := filepath.Join(g.dir, "alice.key")
	if err := os.WriteFile(secret, []byte("a secret of alice, long enough"), 0o600); err != nil {
		g.Fatal(err)
	}
	for _, host := range []string{"192.0.2.1", "[2001:db8:1::1]"} {
		g.alice.Run(program.Client(g.T), "send", "--method", "udp", "--secret-file", secret, "--knock-port", "62201", "alice@"+host+":2222")
		if state := g.alice.ProbeFor("tcp", host+":2222", netlab.Open); state != netlab.Open {
			g.lab.Eventually(20*time.Second, "the knock to open "+host, func() bool { return g.alice.Probe("tcp", host+":2222") == netlab.Open })
		}
	}
	if status, body := g.call(http.MethodDelete, "/knock/grants?client=alice", ""); status != http.StatusOK {
		g.Fatalf("revoking all: %d %s", status, body)
	}
	g.shut("after revoking the knocks")
	id4, id6 := g.grant("192.0.2.2", "10m"), g.grant("2001:db8:1::/64", "10m")
	open := func(when string) {
		g.Helper()
		for _, network := range []string{"tcp", "udp"} {
			for _, to := range []string{"192.0.2.1:2222", "[2001:db8:1::1]:2222"} {
				if state := g.alice.ProbeFor(network, to, netlab.Open); state != netlab.Open {
					g.Errorf("%s: %s %s is %s for alice", when, network, to, state)
				}
			}
			for _, to := range []string{"198.51.100.1:2222", "[2001:db8:2::1]:2222"} {
				if state := g.stranger.ProbeFor(network, to, netlab.Filtered); state == netlab.Open {
					g.Errorf("%s: %s %s is open for the stranger", when, network, to)
				}
			}
		}
	}
	open("after the knock")
	g.write(strings.Replace(g.text, "level INFO", "level WARN", 1))
	g.host.Run(program.Caddy(g.T), "reload", "--config", g.file, "--address", g.admin)
	open("after a reload")
	g.host.Run(flush...)
	g.lab.Eventually(20*time.Second, "the gate to stand again", func() bool {
		_, body := g.call(http.MethodGet, "/metrics", "")
		return regexp.MustCompile(`caddy_knock_firewall_heals_total\{firewall="\w+"\} [1-9]`).MatchString(body)
	})
	open("after a flush")
	for _, id := range []string{id4, id6} {
		if status, body := g.call(http.MethodDelete, "/knock/grants?id="+id, ""); status != http.StatusOK || !strings.Contains(body, `"revoked":1`) {
			g.Fatalf("revoking: %d %s", status, body)
		}
	}
	g.shut("after revoking")
	g.grant("192.0.2.2", "3s")
	over := time.Now().Add(4 * time.Second) // the kernel's clock may have whole seconds
	g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
	g.caddy.Kill()
	g.lab.Eventually(20*time.Second, "the window to end without Caddy", func() bool {
		// On a busy machine a probe may also fail while it is open.
		return time.Now().After(over) && g.alice.Probe("tcp", "192.0.2.1:2222") != netlab.Open
	})
	g.shut("after kill -9")
	g.start()
	g.shut("after another start")
	if status, body := g.call(http.MethodPost, "/stop", ""); status != http.StatusOK {
		g.Fatal(status, body)
	}
	<-g.caddy.Ended
	if state := g.stranger.ProbeFor("tcp", "198.51.100.1:2222", netlab.Open); state != netlab.Open {
		g.Errorf("after on_exit remove the port is %s", state)
	}
}
