// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package passive

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

//go:embed Caddyfile
var caddyfile string

func TestMain(m *testing.M) { program.Main(m) }

const (
	admin  = "127.0.0.1:2019"
	secret = "the libknock secret of alice"
)

// addresses of the host, alice and the stranger.
var (
	host  = map[string]string{"4": "192.0.2.1", "6": "2001:db8::1"}
	alice = map[string]string{"4": "192.0.2.2", "6": "2001:db8::2"}
)

// site is a host with Caddy, and two others.
type site struct {
	*testing.T
	lab                   *netlab.Lab
	host, alice, stranger *netlab.NS
	dir                   string
	caddy                 *program.Process
}

func newSite(t *testing.T, needs ...string) *site {
	t.Helper()
	netlab.Need(t, append([]string{"nft", "tcpdump"}, needs...)...)
	s := &site{T: t, lab: netlab.New(t), dir: t.TempDir()}
	s.host, s.alice, s.stranger = s.lab.NS("host"), s.lab.NS("alice"), s.lab.NS("stranger")
	s.lab.Link(s.host, []string{host["4"] + "/24", host["6"] + "/64"}, s.alice, []string{alice["4"] + "/24", alice["6"] + "/64"})
	s.lab.Link(s.host, []string{"198.51.100.1/24", "2001:db8:2::1/64"}, s.stranger, []string{"198.51.100.2/24", "2001:db8:2::2/64"})
	if err := os.WriteFile(filepath.Join(s.dir, "alice.key"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs Caddy on the host, by the command if there is one.
func (s *site) start(config string, by ...string) {
	s.Helper()
	file := filepath.Join(s.dir, "Caddyfile")
	config = strings.NewReplacer("localhost:2019", admin, "/etc/caddy/knock/", s.dir+"/").Replace(config)
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		s.Fatal(err)
	}
	cmd := s.host.Command(context.Background(), append(by, program.Caddy(s.T), "run", "--config", file)...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+filepath.Join(s.dir, "data"), "XDG_CONFIG_HOME="+filepath.Join(s.dir, "config"), "HOME="+s.dir)
	s.caddy = program.Start(s.T, cmd)
	s.caddy.Await(s.T, "the admin API", func() bool {
		_, err := s.get("/knock/status")
		return err == nil
	})
}

func (s *site) get(path string) (string, error) {
	client := http.Client{Timeout: 20 * time.Second, Transport: program.Persistent(&http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return s.host.Dial("tcp", admin, 5*time.Second)
		},
	})}
	resp, err := client.Get("http://" + admin + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

// grants lists the grants, as "client service prefix".
func (s *site) grants() (list []string) {
	s.Helper()
	body, err := s.get("/knock/grants?all=true")
	if err != nil {
		s.Fatal(err)
	}
	var answer struct {
		Grants []struct{ Client, Service, Prefix, Address string }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		s.Fatalf("%v: %s", err, body)
	}
	for _, g := range answer.Grants {
		list = append(list, strings.TrimSpace(g.Client+" "+g.Service+" "+g.Prefix+g.Address))
	}
	return list
}

// knock sends a knock from alice's host with the real client.
func (s *site) knock(args ...string) {
	s.Helper()
	s.alice.Run(append([]string{program.Client(s.T), "send", "--secret", secret}, args...)...)
}

// answers captures what the host sends to alice while fn runs, but for what finds
// neighbours. What is on its way when fn returns counts as well: a last packet tells
// when all has been seen.
func (s *site) answers(fn func()) (lines []string) {
	s.Helper()
	cmd := s.alice.Command(context.Background(), "tcpdump", "-n", "-l", "--immediate-mode", "-i", "eth0", "-Q", "in",
		"(dst host 192.0.2.2 or dst host 2001:db8::2) and not arp and not (icmp6 and ip6[40] >= 133 and ip6[40] <= 137)")
	dump := program.Start(s.T, cmd)
	dump.Await(s.T, "tcpdump", func() bool { return strings.Contains(dump.Log.String(), "listening on") })
	fn()
	c, err := s.dialFromHost()
	if err == nil {
		_, _ = c.Write([]byte("end"))
		_ = c.Close()
	}
	dump.Await(s.T, "the last packet", func() bool { return strings.Contains(dump.Log.String(), "192.0.2.2.4444") })
	dump.Kill()
	for line := range strings.SplitSeq(dump.Log.String(), "\n") {
		if strings.Contains(line, " IP") && !strings.Contains(line, "192.0.2.2.4444") {
			lines = append(lines, line)
		}
	}
	return lines
}

func (s *site) dialFromHost() (net.Conn, error) {
	return s.host.Dial("udp", "192.0.2.2:4444", time.Second)
}

func TestExample(t *testing.T) {
	s := newSite(t)
	s.host.Echo("tcp", "0.0.0.0:22")
	s.host.Echo("tcp", "[::]:22")
	s.start(strings.Replace(caddyfile, "\tknock {\n", "\tknock {\n\t\tstore memory\n", 1))
	for _, c := range []struct{ method, family, port string }{
		{"udp-passive", "4", "62202"},
		{"tcp-syn", "6", ""},
	} {
		to := net.JoinHostPort(host[c.family], "22")
		if state := s.alice.Probe("tcp", to); state != netlab.Filtered {
			t.Fatalf("%s: the port is %v before the knock", c.method, state)
		}
		args := []string{"--method", c.method, "alice@" + to}
		if c.port != "" {
			args = append(args, "--knock-port", c.port)
		}
		if lines := s.answers(func() {
			s.knock(args...)
			s.caddy.Await(t, "the grant", func() bool { return strings.Contains(strings.Join(s.grants(), "\n"), alice[c.family]) })
		}); len(lines) > 0 {
			t.Errorf("%s: the host said %q", c.method, lines)
		}
		s.alice.Expect("tcp", to, netlab.Open)
	}
	if s.stranger.Probe("tcp", "198.51.100.1:22") != netlab.Filtered {
		t.Error("the stranger is in, too")
	}
}
