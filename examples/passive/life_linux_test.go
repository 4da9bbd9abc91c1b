// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package passive

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// plain is a configuration without a firewall.
func plain(source string) string {
	return `{
	admin localhost:2019
	knock {
		store memory
		client alice {
			secret {file./etc/caddy/knock/alice.key}
			services ssh
		}
		service ssh tcp/22 {
			open_for 10m
		}
		source ` + source + `
	}
}
`
}

// unit is how systemd starts Caddy's own unit, as far as rights go: as a user who has
// nothing but these capabilities.
func unit(t *testing.T, s *site, capabilities string) []string {
	t.Helper()
	program.Need(t, "setpriv")
	for dir := s.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{s.dir, filepath.Join(s.dir, "alice.key")} {
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	return []string{
		"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs",
		"--inh-caps", "-all," + capabilities, "--ambient-caps", "-all," + capabilities, "--bounding-set", "-all," + capabilities,
	}
}

func (s *site) knocksAndIsIn(args ...string) {
	s.Helper()
	before := strings.Count(s.caddy.Log.String(), `"msg":"granted"`)
	s.knock(args...)
	s.caddy.Await(s.T, "a grant", func() bool { return strings.Count(s.caddy.Log.String(), `"msg":"granted"`) > before })
}

// knocksUntilIn is knocksAndIsIn for when packets may be lost: whoever hears nothing
// knocks again. It returns how often that was.
func (s *site) knocksUntilIn(args ...string) (knocks int) {
	s.Helper()
	before, knocked := strings.Count(s.caddy.Log.String(), `"msg":"granted"`), time.Time{}
	s.caddy.Await(s.T, "a grant", func() bool {
		if time.Since(knocked) > 2*time.Second {
			s.knock(args...)
			knocks++
			knocked = time.Now()
		}
		return strings.Count(s.caddy.Log.String(), `"msg":"granted"`) > before
	})
	return knocks
}

// TestUnitRights: what Caddy's own unit has is enough for nflog and its table, also
// where somebody flushes that; and source packet says what it lacks.
func TestUnitRights(t *testing.T) {
	s := newSite(t)
	by := unit(t, s, "+net_admin,+net_bind_service")
	s.start(plain("nflog {\nports udp/62202\n}"), by...)
	s.knocksAndIsIn("--method", "udp-passive", "--knock-port", "62202", "alice@192.0.2.1:22")
	s.host.Run("nft", "flush", "ruleset")
	s.caddy.Await(t, "the repair", func() bool { return strings.Contains(s.caddy.Log.String(), "are mended") })
	s.knocksAndIsIn("--method", "udp-passive", "--knock-port", "62202", "alice@[2001:db8::1]:22")
	// Another one cannot have the same group.
	out := s.fails(plain("nflog {\ntable another\nports udp/62202\n}"))
	if !strings.Contains(out, "group 62201 is read by another program") {
		t.Errorf("a taken group: %s", out)
	}
	_ = s.caddy.Process.Signal(os.Interrupt)
	<-s.caddy.Ended
	if left := s.host.Run("nft", "list", "ruleset"); strings.TrimSpace(left) != "" {
		t.Errorf("Caddy left %s", left)
	}
	for source, want := range map[string]string{"packet": "setcap cap_net_raw=+ep", "nflog": ""} {
		out := s.fails(plain(source), unit(t, s, "+net_bind_service")...)
		if source == "nflog" {
			want = "AmbientCapabilities=CAP_NET_ADMIN"
		}
		if !strings.Contains(out, want) {
			t.Errorf("source %s without rights: %s", source, out)
		}
	}
}

// fails runs Caddy with a configuration that cannot be started, and returns what it
// said.
func (s *site) fails(config string, by ...string) string {
	s.Helper()
	file := filepath.Join(s.dir, "Failing")
	config = strings.NewReplacer("admin localhost:2019", "admin off", "/etc/caddy/knock/", s.dir+"/").Replace(config)
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.Context(), 30*time.Second)
	defer cancel()
	cmd := s.host.Command(ctx, append(by, program.Caddy(s.T), "run", "--adapter", "caddyfile", "--config", file)...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+filepath.Join(s.dir, "data2"), "XDG_CONFIG_HOME="+filepath.Join(s.dir, "config2"), "HOME="+s.dir)
	out, err := cmd.CombinedOutput()
	if err == nil || ctx.Err() != nil {
		s.Errorf("Caddy started: %v", err)
	}
	return string(out)
}

// TestInterfaceComesAndGoes: a named interface that is not there at first, and is
// deleted and made anew; and a reload that watches another port.
func TestInterfaceComesAndGoes(t *testing.T) {
	for _, source := range []string{"packet", "nflog"} {
		t.Run(source, func(t *testing.T) {
			s := newSite(t)
			s.host.Run("ip", "link", "del", "eth0")
			s.start(plain(source + " {\ninterfaces eth0\nports udp/62202\n}"))
			for range 2 {
				s.host.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", s.alice.Name)
				s.host.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
				s.host.Run("ip", "link", "set", "eth0", "up")
				s.alice.Run("ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
				s.alice.Run("ip", "link", "set", "eth0", "up")
				// It has to notice, so the first knocks may be too early.
				before := strings.Count(s.caddy.Log.String(), `"msg":"granted"`)
				s.caddy.Await(t, "a grant", func() bool {
					s.knock("--method", "udp-passive", "--knock-port", "62202", "alice@192.0.2.1:22")
					return strings.Count(s.caddy.Log.String(), `"msg":"granted"`) > before
				})
				s.host.Run("ip", "link", "del", "eth0")
			}
			// By another interface nothing counts.
			_, _ = s.stranger.Try(program.Client(t), "send", "--secret", secret, "--method", "udp-passive", "--knock-port", "62202", "alice@198.51.100.1:22")
			if strings.Contains(strings.Join(s.grants(), " "), "198.51.100.2") {
				t.Error("a knock by another interface counts")
			}
		})
	}
}

// TestReload: a reload moves the port of the knocks; the one before is silent then.
func TestReload(t *testing.T) {
	for _, source := range []string{"packet", "nflog"} {
		t.Run(source, func(t *testing.T) {
			s := newSite(t)
			s.start(plain(source + " {\nports udp/62202\n}"))
			s.knocksAndIsIn("--method", "udp-passive", "--knock-port", "62202", "alice@192.0.2.1:22")
			file := filepath.Join(s.dir, "Caddyfile")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(strings.Replace(string(text), "udp/62202", "udp/62203", 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			s.host.Run(program.Caddy(t), "reload", "--config", file, "--address", admin)
			s.knocksAndIsIn("--method", "udp-passive", "--knock-port", "62203", "alice@192.0.2.1:22")
			before := s.received()
			s.knock("--method", "udp-passive", "--knock-port", "62202", "alice@192.0.2.1:22")
			s.knocksAndIsIn("--method", "udp-passive", "--knock-port", "62203", "alice@192.0.2.1:22")
			if got := s.received() - before; got != 1 {
				t.Errorf("%v packets were read, one was for us", got)
			}
		})
	}
}

// metric reads a counter of Caddy's, of all sources.
func (s *site) metric(name string) (sum float64) {
	s.Helper()
	text, err := s.get("/metrics")
	if err != nil {
		s.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name) {
			value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			if err != nil {
				s.Fatal(err)
			}
			sum += value
		}
	}
	return sum
}

func (s *site) received() float64 { return s.metric("caddy_knock_datagrams_total") }

// cpu is the processor time that Caddy has used in user space and in the kernel.
func (s *site) cpu() (user, system time.Duration) {
	s.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.caddy.Process.Pid))
	if err != nil {
		s.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	tick := func(i int) time.Duration {
		n, _ := strconv.Atoi(fields[i])
		return time.Duration(n) * 10 * time.Millisecond
	}
	return tick(11), tick(12)
}

// memory is what Caddy has in memory, in KiB.
func (s *site) memory() int {
	s.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.caddy.Process.Pid))
	if err != nil {
		s.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	n, _ := strconv.Atoi(strings.Fields(rest)[0])
	return n
}

// floodPackets and floodTime bound a flood.
const (
	floodPackets = 50_000
	floodTime    = time.Second
)

// flood sends SYNs or datagrams from forged addresses, as fast as hping3 can.
func (s *site) flood(args ...string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), floodTime)
	defer cancel()
	cmd := s.stranger.Command(ctx, append([]string{"hping3", "-q", "--rand-source", "-c", strconv.Itoa(floodPackets), "-i", "u1"}, append(args, "198.51.100.1")...)...)
	_ = cmd.Run()
}

// TestFlood: packets to other ports are not even read; those to the ports of knocks
// cost bounded memory, and knocks get through.
func TestFlood(t *testing.T) {
	for _, source := range []string{"packet", "nflog"} {
		t.Run(source, func(t *testing.T) {
			s := newSite(t, "hping3")
			s.host.Run("sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=0")
			s.host.RunInput("table inet theirs {\nchain input {\ntype filter hook input priority 0; policy accept;\niifname eth1 drop\n}\n}\n", "nft", "-f", "-")
			s.start(plain(source + " {\nports udp/62202\n}"))
			s.knocksAndIsIn("--method", "udp-passive", "--knock-port", "62202", "alice@192.0.2.1:22")
			before, user := s.received(), time.Duration(0)
			user0, _ := s.cpu()
			s.flood("-S", "-p", "2222")
			s.flood("-2", "-d", "100", "-p", "4000")
			user1, _ := s.cpu()
			if user = user1 - user0; s.received() != before {
				t.Errorf("%v packets to other ports were read", s.received()-before)
			}
			t.Logf("flood of other ports: %v of user-space CPU", user)

			s.flood("-2", "-d", "100", "-p", "62202") // what is allocated once is there now
			middle := s.memory()
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.flood("-S", "-p", "22")
				s.flood("-2", "-d", "100", "-p", "62202")
			}()
			knocks, admitted := 0, 0
			for flooding := true; flooding; admitted++ {
				select {
				case <-done:
					flooding = false
				default:
				}
				knocks += s.knocksUntilIn("--method", "udp-passive", "--knock-port", "62202", "alice@192.0.2.1:22")
			}
			if knocks > 2*admitted+2 { // some may be lost where much else runs
				t.Errorf("%d of %d knocks were admitted", admitted, knocks)
			}
			user2, system2 := s.cpu()
			t.Logf("flood of our ports: %v packets read, %v dropped, %d of %d knocks admitted; CPU so far %v user, %v system; %d KiB before, %d after",
				s.received()-before, s.metric("caddy_knock_datagrams_dropped_total"), admitted, knocks, user2, system2, middle, s.memory())
			if grown := s.memory() - middle; grown > 32<<10 {
				t.Errorf("memory grew by %d KiB", grown)
			}
		})
	}
}
