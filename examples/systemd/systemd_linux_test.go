// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package systemd checks the boot unit and runs what it runs.
package systemd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

func TestMain(m *testing.M) { program.Main(m) }

const (
	unit   = "caddy-knock-closed.service"
	dropIn = "caddy.service.conf"
	rules  = "/etc/caddy/knock/closed.nft"
)

// setting is the value of a key of a unit file.
func setting(t *testing.T, file, key string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, key+"="); ok {
			return value
		}
	}
	t.Fatalf("%s has no %s", file, key)
	return ""
}

// TestUnits lets systemd itself look at the units.
func TestUnits(t *testing.T) {
	analyze := program.Need(t, "systemd-analyze")
	program.Need(t, "nft")
	dir := t.TempDir()
	caddy := filepath.Join(dir, "caddy")
	if err := os.Mkdir(filepath.Join(dir, "caddy.service.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{unit: unit, dropIn: "caddy.service.d/knock.conf", hardened: hardened} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), []byte(strings.ReplaceAll(string(text), "/usr/bin/caddy", caddy)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/bin/true", caddy); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{unit, hardened} {
		cmd := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, name))
		cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), dir) {
			t.Errorf("systemd-analyze verify %s: %v %s", name, err, out)
		}
	}
	if before := setting(t, unit, "Before"); !strings.Contains(before, "network-pre.target") {
		t.Errorf("Before=%s", before)
	}
}

// TestBoot goes through a boot: the rules, then the network, then Caddy, which
// takes over without a moment in which the service is open.
func TestBoot(t *testing.T) {
	netlab.Need(t, "nft")
	lab, dir := netlab.New(t), t.TempDir()
	host, alice, stranger := lab.NS("host"), lab.NS("alice"), lab.NS("stranger")
	text, err := os.ReadFile("../modes/knock-firewall-only/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("/etc/caddy/knock/", dir+"/", "/etc/caddy/Caddyfile", dir+"/Caddyfile", "/usr/bin/caddy", program.Caddy(t))
	for name, text := range map[string]string{"Caddyfile": here.Replace(string(text)), "alice.key": "the secret of alice, long enough"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(file, key string) {
		t.Helper()
		host.Run(strings.Fields(here.Replace(strings.TrimPrefix(setting(t, file, key), "+")))...)
	}
	// At the last start of Caddy, and again: the file is replaced.
	run(dropIn, "ExecStartPre")
	run(dropIn, "ExecStartPre")
	run(unit, "ExecStart")
	lab.Link(host, []string{"192.0.2.1/24"}, alice, []string{"192.0.2.2/24"})
	lab.Link(host, []string{"198.51.100.1/24"}, stranger, []string{"198.51.100.2/24"})
	host.Echo("tcp", "0.0.0.0:22")

	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan int)
	go func() {
		n := 0
		stranger.Watch(ctx, "tcp", "198.51.100.1:22", time.Millisecond, func(state netlab.State) bool {
			if n++; state == netlab.Open {
				t.Error("a stranger got in")
			}
			return state != netlab.Open
		})
		watched <- n
	}()
	cmd := host.Command(context.Background(), program.Caddy(t), "run", "--config", filepath.Join(dir, "Caddyfile"))
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir+"/data", "XDG_CONFIG_HOME="+dir+"/config")
	caddy := program.Start(t, cmd)
	caddy.Await(t, "Caddy to serve", func() bool { return strings.Contains(caddy.Log.String(), "serving initial configuration") })
	knock := func() {
		alice.Run("env", "HOME="+dir, program.Client(t), "send", "--client", "alice", "--secret-file", filepath.Join(dir, "alice.key"), "192.0.2.1", "22")
	}
	knock()
	lab.Eventually(20*time.Second, "the knock to count", func() bool { return alice.Probe("tcp", "192.0.2.1:22") == netlab.Open })
	run(unit, "ExecStart") // somebody restarts the unit: windows are put back
	lab.Eventually(20*time.Second, "the window to be back", func() bool { return alice.Probe("tcp", "192.0.2.1:22") == netlab.Open })
	caddy.Kill()
	if got := stranger.Probe("tcp", "198.51.100.1:22"); got != netlab.Filtered {
		t.Errorf("after kill -9: %s", got)
	}
	cancel()
	t.Logf("a stranger tried %d times", <-watched)
	if setting(t, unit, "ExecStart") != "/usr/sbin/nft -f "+rules {
		t.Error("the unit loads another file than the drop-in prints")
	}
}
