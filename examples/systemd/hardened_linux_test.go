// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

const hardened = "caddy.service"

// TestExposure holds the unit to the figure in the README, with room for other
// versions of systemd, and its capabilities to the two that it needs.
func TestExposure(t *testing.T) {
	analyze := program.Need(t, "systemd-analyze")
	out := program.Run(t, analyze, "security", "--offline=true", "--no-pager", hardened)
	m := regexp.MustCompile(`Overall exposure level for caddy.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no figure in %s", out)
	}
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > 2.5 {
		t.Errorf("the exposure level is %s, not 2.5 or less", m[1])
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`exposure level\s+of [0-9.]+`).Match(readme) {
		t.Error("the README gives no figure")
	}
	for _, key := range []string{"AmbientCapabilities", "CapabilityBoundingSet"} {
		if got := setting(t, hardened, key); got != "CAP_NET_ADMIN CAP_NET_BIND_SERVICE" {
			t.Errorf("%s=%s", key, got)
		}
	}
}

// settings are the values of a key that occurs several times.
func settings(t *testing.T, file, key string) (values []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			values = append(values, value)
		}
	}
	return values
}

// addCalls puts the system calls of a set of systemd's, or a single one, into a set.
func addCalls(t *testing.T, to map[string]bool, name string, allowed bool) {
	t.Helper()
	if !strings.HasPrefix(name, "@") {
		to[name] = allowed
		return
	}
	for _, line := range strings.Split(program.Run(t, "systemd-analyze", "syscall-filter", name), "\n")[1:] {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			addCalls(t, to, line, allowed)
		}
	}
}

// busy is a configuration with whatever the kernel may have to allow.
const busy = `{
	admin unix//DIR/state/admin.sock
	skip_install_trust
	log {
		output file DIR/state/caddy.log
	}
	knock {
		client alice {
			secret {file.DIR/alice.key}
			services all
		}
		service ssh tcp/22 {
			firewall nftables
			open_for 1h
			on_expire cut
		}
		service relay tcp/2222
		service other tcp/23 {
			firewall exec
		}
		firewall nftables
		firewall exec {
			setup /bin/true
			open /bin/true {knock.address}
			close /bin/true {knock.address}
		}
		source udp :62201
		source nflog {
			ports udp/62202
			drop
		}
	}
	layer4 {
		:2222 {
			route {
				knock relay {
					admit {
						knock_relay 127.0.0.1:7
					}
				}
				proxy 127.0.0.1:80
			}
		}
	}
}
http://:80 {
	respond "It works!"
}
https://192.0.2.1 {
	tls internal
	respond "It works!"
}
`

var (
	call   = regexp.MustCompile(`(?m)^\d+ +([a-z0-9_]+)\((.*)$`)
	family = regexp.MustCompile(`^(AF_\w+),`)
	path   = regexp.MustCompile(`"([^"]*)"`)
)

// TestHardenedUnitIsEnough: no systemd runs here that could enforce the unit. Caddy,
// as a user with its capabilities, does all it can do, and strace tells the system
// calls, which the unit has to allow.
func TestHardenedUnitIsEnough(t *testing.T) {
	netlab.Need(t, "nft", "setpriv", "strace", "curl", "systemd-analyze")
	lab, dir := netlab.New(t), t.TempDir()
	for p := dir; p != os.TempDir() && p != filepath.Dir(p); p = filepath.Dir(p) {
		_ = os.Chmod(p, 0o755)
	}
	const nobody = 65534
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"Caddyfile": strings.ReplaceAll(busy, "DIR", dir), "alice.key": "the secret of alice, long enough", "client.key": "the secret of alice, long enough"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"", "/Caddyfile", "/alice.key", "/state"} {
		if err := os.Chown(dir+name, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	host, alice := lab.NS("host"), lab.NS("alice")
	lab.Link(host, []string{"192.0.2.1/24"}, alice, []string{"192.0.2.2/24"})
	host.Echo("tcp", "0.0.0.0:22")
	host.Echo("tcp", "127.0.0.1:7")

	caps := strings.ReplaceAll(strings.ToLower(setting(t, hardened, "AmbientCapabilities")), "cap_", "+")
	caps = "-all," + strings.ReplaceAll(caps, " ", ",")
	trace := filepath.Join(state, "trace")
	env := append(os.Environ(), "HOME="+state, "XDG_DATA_HOME="+state+"/data", "XDG_CONFIG_HOME="+state+"/config")
	cmd := host.Command(context.Background(), "setpriv", "--reuid", strconv.Itoa(nobody), "--regid", strconv.Itoa(nobody), "--clear-groups", "--no-new-privs",
		"--inh-caps", caps, "--ambient-caps", caps, "--bounding-set", caps,
		"strace", "-f", "-e", "signal=none", "-o", trace, program.Caddy(t), "run", "--config", dir+"/Caddyfile")
	cmd.Env, cmd.Dir = env, dir
	caddy := program.Start(t, cmd)
	logged := func() string {
		text, _ := os.ReadFile(filepath.Join(state, "caddy.log"))
		return string(text) + caddy.Log.String()
	}
	caddy.Await(t, "Caddy to serve", func() bool { return strings.Contains(logged(), "serving initial configuration") })

	knock := func(args ...string) {
		t.Helper()
		args = append([]string{"env", "HOME=" + dir, program.Client(t)}, args...)
		alice.Run(append(args[:4:4], append([]string{"--client", "alice", "--secret-file", dir + "/client.key"}, args[4:]...)...)...)
	}
	granted := func(n int) func() bool {
		return func() bool { return strings.Count(logged(), `"msg":"granted"`) >= n }
	}
	knock("send", "192.0.2.1", "22")
	caddy.Await(t, "a grant by a datagram", granted(1))
	if got := alice.ProbeFor("tcp", "192.0.2.1:22", netlab.Open); got != netlab.Open {
		t.Errorf("port 22 is %s", got)
	}
	knock("send", "192.0.2.1", "23")
	caddy.Await(t, "a grant with a command", granted(2))
	knock("send", "--method", "udp-passive", "--knock-port", "62202", "192.0.2.1", "22")
	caddy.Await(t, "a grant by a packet", granted(3))
	relayed := exec.Command("sh", "-c", fmt.Sprintf("head -c 3000000 /dev/zero | %s connect --client alice --secret-file %s/client.key --server-proof 192.0.2.1:2222 | wc -c", program.Client(t), dir))
	var out []byte
	alice.Do(func() { out, _ = relayed.CombinedOutput() })
	if strings.TrimSpace(string(out)) != "3000000" {
		t.Errorf("the relay says %q", out)
	}
	alice.Run("curl", "-fsS", "http://192.0.2.1:2222/", "http://192.0.2.1/")
	program.Await(t, "the certificate", func() bool {
		_, err := alice.Try("curl", "-fsSk", "https://192.0.2.1/")
		return err == nil
	})
	conn, err := alice.Dial("tcp", "192.0.2.1:22", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, args := range [][]string{{"reload", "--force", "--config", dir + "/Caddyfile", "--address", "unix//" + state + "/admin.sock"}, {"knock", "revoke", "--client", "alice", "--address", "unix//" + state + "/admin.sock"}, {"stop", "--address", "unix//" + state + "/admin.sock"}} {
		cmd := host.Command(t.Context(), append([]string{program.Caddy(t)}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("caddy %v: %v\n%s", args, err, out)
		}
	}
	var text []byte
	caddy.Await(t, "Caddy to end", func() bool {
		text, err = os.ReadFile(trace)
		return err == nil && strings.Contains(string(text), "+++ exited with 0 +++")
	})
	checkTrace(t, string(text), state)
}

// checkTrace compares what was called with what the unit allows.
func checkTrace(t *testing.T, trace, state string) {
	t.Helper()
	allowed := make(map[string]bool)
	for _, value := range settings(t, hardened, "SystemCallFilter") {
		names, not := strings.CutPrefix(value, "~")
		for _, name := range strings.Fields(names) {
			addCalls(t, allowed, name, !not)
		}
	}
	families := " " + setting(t, hardened, "RestrictAddressFamilies") + " "
	seen, sockets, written := make(map[string]bool), make(map[string]bool), 0
	complain := func(format string, args ...any) { t.Errorf(format, args...) }
	for _, m := range call.FindAllStringSubmatch(trace, -1) {
		name, args := m[1], m[2]
		if !seen[name] && !allowed[name] {
			complain("the unit forbids %s(%s", name, args)
		}
		seen[name] = true
		switch {
		case name == "socket":
			if f := family.FindStringSubmatch(args); f != nil {
				if sockets[f[1]] = true; !strings.Contains(families, " "+f[1]+" ") && !strings.Contains(args, "= -1") {
					complain("the unit forbids socket(%s", args)
				}
			}
		case (name == "mmap" || name == "mprotect") && strings.Contains(args, "PROT_WRITE|PROT_EXEC"):
			complain("the unit forbids %s(%s", name, args)
		case (name == "clone" || name == "unshare" || name == "clone3") && strings.Contains(args, "CLONE_NEW"):
			complain("the unit forbids %s(%s", name, args)
		case strings.HasPrefix(name, "open") && regexp.MustCompile(`O_WRONLY|O_RDWR|O_CREAT`).MatchString(args),
			strings.HasPrefix(name, "mkdir"), strings.HasPrefix(name, "unlink"), strings.HasPrefix(name, "rename"):
			for _, p := range path.FindAllStringSubmatch(args, -1) {
				written++
				if file := filepath.Clean(p[1]); strings.HasPrefix(p[1], "/") && !strings.HasPrefix(file, state+"/") && file != "/dev/null" && !strings.Contains(args, "= -1") {
					complain("the unit forbids %s(%s", name, args)
				}
			}
		}
	}
	if len(seen) < 40 || !sockets["AF_NETLINK"] || !sockets["AF_INET"] || !sockets["AF_UNIX"] || written < 10 || !seen["splice"] || !seen["execve"] {
		t.Errorf("little was seen: %d system calls, sockets %v, %d writes, splice %v", len(seen), sockets, written, seen["splice"])
	}
	t.Logf("%d system calls, sockets %v, %d writes", len(seen), sockets, written)
}
