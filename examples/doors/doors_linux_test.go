// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doors

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
)

func TestMain(m *testing.M) { program.Main(m) }

const (
	host4, host6 = "192.0.2.1", "2001:db8::1"
	patience     = 20 * time.Second
)

// site is a host with Caddy, and one who knocks.
type site struct {
	*testing.T
	lab         *netlab.Lab
	host, alice *netlab.NS
	dir         string
	caddy       *program.Process
}

func newSite(t *testing.T, programs ...string) *site {
	t.Helper()
	netlab.Need(t, append(programs, "nft")...)
	s := &site{T: t, lab: netlab.New(t), dir: t.TempDir()}
	s.host, s.alice = s.lab.NS("host"), s.lab.NS("alice")
	s.lab.Link(s.host, []string{host4 + "/24", host6 + "/64"}, s.alice, []string{"192.0.2.2/24", "2001:db8::2/64"})
	return s
}

// example is the example's configuration with changes.
func example(t *testing.T, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile("Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(replace...).Replace(string(b))
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(b), replace[i]) {
			t.Fatalf("the example has no %q", replace[i])
		}
	}
	return text
}

func (s *site) start(config string) {
	s.Helper()
	file := s.write(config)
	cmd := s.host.Command(context.Background(), program.Caddy(s.T), "run", "--adapter", "caddyfile", "--config", file)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+filepath.Join(s.dir, "data"), "XDG_CONFIG_HOME="+filepath.Join(s.dir, "config"), "HOME="+s.dir)
	s.caddy = program.Start(s.T, cmd)
	s.awaitLog("serving initial configuration", 1)
}

func (s *site) write(config string) string {
	s.Helper()
	file := filepath.Join(s.dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		s.Fatal(err)
	}
	return file
}

func (s *site) logged(text string) int { return strings.Count(s.caddy.Log.String(), text) }

func (s *site) awaitLog(text string, times int) {
	s.Helper()
	s.caddy.Await(s.T, fmt.Sprintf("%d × %s", times, text), func() bool { return s.logged(text) >= times })
}

func (s *site) reload(config string) (string, error) {
	return s.host.Try(program.Caddy(s.T), "reload", "--adapter", "caddyfile", "--config", s.write(config), "--address", "localhost:2019")
}

// send knocks by single packets, without pause.
func (s *site) send(source, to string, steps ...string) {
	s.Helper()
	sender := knockclient.Sender{Source: netip.MustParseAddr(source)}
	k := knockclient.Knock{Method: knockcore.MethodPortSequence, RawSYN: true, Interval: -1}
	for _, text := range steps {
		step, err := sequence.ParseStep(text)
		if err != nil {
			s.Fatal(err)
		}
		k.Steps = append(k.Steps, step)
	}
	var err error
	s.alice.Do(func() { _, err = sender.Send(context.Background(), to, 0, k) })
	if err != nil {
		s.Fatal(err)
	}
}

// clients are the ways to knock, for an address and steps of which one is UDP.
func clients(t *testing.T, s *site) map[string]func(to string, steps []string) {
	port := func(step string) (proto, port string) {
		proto, port, _ = strings.Cut(step, "/")
		return proto, port
	}
	each := func(one func(to, proto, port string)) func(string, []string) {
		return func(to string, steps []string) {
			for _, step := range steps {
				proto, p := port(step)
				one(to, proto, p)
			}
		}
	}
	ours := func(more ...string) func(string, []string) {
		return func(to string, steps []string) {
			args := append([]string{program.Client(t), "send", "--method", "port-sequence", "--delay", "20ms"}, more...)
			s.alice.Run(append(append(args, to), steps...)...)
		}
	}
	return map[string]func(string, []string){
		"knock": func(to string, steps []string) {
			args := []string{"knock", "-d", "20", to}
			for _, step := range steps {
				proto, p := port(step)
				args = append(args, p+":"+proto)
			}
			s.alice.Run(args...)
		},
		"hping3": each(func(to, proto, p string) {
			kind := "-S"
			if proto == "udp" {
				kind = "--udp"
			}
			_, _ = s.alice.Try("hping3", kind, "-c", "1", "-p", p, to) // it fails when nobody answers
		}),
		"nc": each(func(to, proto, p string) {
			args := []string{"nc", "-w", "1", to, p}
			if proto == "udp" {
				args = []string{"nc", "-u", "-q", "0", to, p} // it would wait for an answer
			}
			_, _ = s.alice.TryInput("x", args...)
		}),
		"bash":    each(func(to, proto, p string) { _, _ = s.alice.Try("bash", "-c", "echo x > /dev/"+proto+"/"+to+"/"+p) }),
		"send":    ours(),
		"raw SYN": ours("--raw-syn"),
	}
}

// TestClients knocks with all clients, through both sources, over both families.
func TestClients(t *testing.T) {
	open := strings.Fields("tcp/7000 udp/9000 tcp/8000 tcp/7500")
	closes := strings.Fields("tcp/7500 udp/9000 tcp/8000 tcp/7000")
	for _, source := range []string{"nflog", "packet"} {
		t.Run(source, func(t *testing.T) {
			s := newSite(t, "knock", "hping3", "nc", "bash")
			s.host.Echo("tcp", host4+":22")
			s.host.Echo("tcp", "["+host6+"]:22")
			s.start(example(t, "source nflog", "source "+source, "within 10s", "within 1m"))
			granted, revoked := 0, 0
			for name, knock := range clients(t, s) {
				for _, to := range []string{host4, host6} {
					if name == "hping3" && to == host6 {
						continue // it knows no IPv6
					}
					target := netip.AddrPortFrom(netip.MustParseAddr(to), 22).String()
					if s.alice.Probe("tcp", target) == netlab.Open {
						t.Fatalf("%s at %s: open before the knock", name, to)
					}
					knock(to, open)
					granted++
					s.awaitLog(`"msg":"granted"`, granted)
					if state := s.alice.ProbeFor("tcp", target, netlab.Open); state != netlab.Open {
						t.Errorf("%s at %s: %s after the knock", name, to, state)
					}
					knock(to, closes)
					revoked++
					s.awaitLog(`"msg":"revoked"`, revoked)
				}
			}
		})
	}
}

// TestReload: a knock may begin in one configuration and end in the next, also where
// one in between fails.
func TestReload(t *testing.T) {
	s := newSite(t)
	example := func(replace ...string) string { // commands take their time on a busy machine
		return example(t, append(replace, "within 10s", "within 1m")...)
	}
	s.start(example())
	s.send("192.0.2.2", host4, "tcp/7000")
	if out, err := s.reload(example("open_for 10m", "open_for 20m")); err != nil {
		t.Fatal(out)
	}
	s.send("192.0.2.2", host4, "udp/9000")
	// One that fails when it starts: another program has the group.
	if out, err := s.reload(example("client alice {\n\t\t\tmethods", "client alice {\n\t\t\tsecret {file./no/such/file}\n\t\t\tmethods")); err == nil {
		t.Errorf("it was loaded: %s", out)
	}
	s.send("192.0.2.2", host4, "tcp/8000")
	if out, err := s.reload(example("source nflog {", "source packet\n\t\tsource nflog {\n\t\t\ttable other\n\t\t\tgroup 1")); err == nil {
		t.Errorf("two sources for the same knocks were loaded: %s", out)
	}
	s.send("192.0.2.2", host4, "tcp/7500")
	s.awaitLog(`"msg":"granted"`, 1)
}

// TestCommands: the stop command runs at its time, once, whatever happens.
func TestCommands(t *testing.T) {
	s := newSite(t)
	log := filepath.Join(s.dir, "ran")
	script := filepath.Join(s.dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$@\" >> "+log+"\necho said $1\n[ ! -e "+s.dir+"/fail ]\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := func() string {
		b, _ := os.ReadFile(log)
		return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", ", ")
	}
	ran := func(want string) {
		t.Helper()
		s.caddy.Await(t, want, func() bool { return text() == want })
	}
	config := func(openFor string) string {
		return example(t, "/usr/bin/logger -t door opened for", script+" start", "/usr/bin/logger -t door closed for", script+" stop", "open_for 10m", "open_for "+openFor)
	}
	knock := func() { s.send("192.0.2.2", host4, "6100", "6300", "6200", "6050") }
	s.start(config("1h"))
	knock()
	ran("start alice at 192.0.2.2")
	s.awaitLog(`"output":"said start"`, 1)
	// Killed, it goes on where it was: a knock moves the end, and starts nothing anew.
	s.caddy.Kill()
	s.start(config("2s"))
	knock()
	s.awaitLog(`"renewed":true`, 1)
	ran("start alice at 192.0.2.2, stop alice at 192.0.2.2")
	s.awaitLog(`"msg":"expired"`, 1)
	// Killed and started when the time is over.
	knock()
	started := "start alice at 192.0.2.2, stop alice at 192.0.2.2, start alice at 192.0.2.2"
	s.caddy.Await(t, started, func() bool { return strings.HasPrefix(text(), started) }) // a slow machine sees the end, too
	s.caddy.Kill()
	time.Sleep(2 * time.Second) // its whole life
	s.start(config("1h"))
	ran(started + ", stop alice at 192.0.2.2")
	// One that fails: the log and the grant say so.
	if err := os.WriteFile(s.dir+"/fail", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	knock()
	s.awaitLog(`"msg":"command failed"`, 1)
	s.caddy.Await(t, "the grant to tell of it", func() bool { // the log is told first
		var page struct {
			Grants []struct{ Service, Trouble string }
		}
		out := s.host.Run("curl", "-s", "http://localhost:2019/knock/grants")
		if err := json.Unmarshal([]byte(out), &page); err != nil || len(page.Grants) != 1 || page.Grants[0].Service != "door:backup" {
			t.Fatalf("grants: %s, %v", out, err)
		}
		return strings.Contains(page.Grants[0].Trouble, "exit status 1")
	})
}

// TestFloods: honest knocks count while spoofed sources and a slow host hit the
// first port.
func TestFloods(t *testing.T) {
	s := newSite(t, "hping3")
	for i := range 20 {
		s.alice.Addr("eth0", fmt.Sprintf("192.0.2.%d/24", 100+i))
	}
	s.start(example(t))
	flood := program.Start(t, s.alice.Command(context.Background(), "hping3", "-q", "-S", "-p", "7000", "--rand-source", "-i", "u100", host4))
	slow := program.Start(t, s.alice.Command(context.Background(), "hping3", "-q", "-S", "-p", "7000", "-a", "192.0.2.99", "-i", "u50000", host4))
	// A host that is busy with other things may lose a packet to the flood: whoever is
	// not in knocks again, as people do.
	tries := 0
	for i := range 20 {
		from, tried := fmt.Sprintf("192.0.2.%d", 100+i), time.Time{}
		granted := regexp.MustCompile(`"msg":"granted".*"source":"` + regexp.QuoteMeta(from) + `"`)
		s.caddy.Await(t, "the knock from "+from, func() bool {
			if time.Since(tried) > 3*time.Second {
				s.alice.Run(program.Client(t), "send", "--method", "port-sequence", "--delay", "50ms", "--source", from, host4, "7000", "9000:udp", "8000", "7500")
				tries++
				tried = time.Now()
			}
			return granted.MatchString(s.caddy.Log.String())
		})
	}
	if tries > 25 {
		t.Errorf("20 knocks took %d tries", tries)
	}
	select {
	case <-flood.Ended:
		t.Errorf("the flood ended: %s", flood.Log)
	case <-slow.Ended:
		t.Errorf("the slow host ended: %s", slow.Log)
	default:
	}
}
