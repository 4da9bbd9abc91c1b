// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

func TestMain(m *testing.M) { program.Main(m) }

const adminAddress = "127.0.0.1:2019"

// site is the ready Caddy in a network of three: the server, the client and a
// stranger, each on a link of its own.
type site struct {
	t                        *testing.T
	dir                      string
	server, client, stranger *netlab.NS
	caddy                    *program.Process
	program                  string
	admin                    *http.Client
}

// The addresses of the network.
var (
	server4, server6     = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	client4, client6     = netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")
	stranger4, stranger6 = netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:1::2")
)

// newSite runs Caddy in the network; block goes into the configuration's knock
// block, routes behind it.
func newSite(t *testing.T, block, rest string) *site {
	t.Helper()
	netlab.Need(t)
	lab := netlab.New(t)
	s := &site{t: t, dir: t.TempDir(), server: lab.NS("server"), client: lab.NS("client"), stranger: lab.NS("stranger"), program: program.Caddy(t)}
	lab.Link(s.server, []string{"192.0.2.1/24", "2001:db8::1/64"}, s.client, []string{"192.0.2.2/24", "2001:db8::2/64"})
	lab.Link(s.server, []string{"198.51.100.1/24", "2001:db8:1::1/64"}, s.stranger, []string{"198.51.100.2/24", "2001:db8:1::2/64"})
	s.client.DefaultRoute("192.0.2.1", "2001:db8::1")
	s.stranger.DefaultRoute("198.51.100.1", "2001:db8:1::1")
	s.admin = &http.Client{Transport: program.Persistent(&http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return s.server.Dial("tcp", adminAddress, 10*time.Second)
		},
	}), Timeout: 30 * time.Second}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	cmd := s.server.Command(ctx, s.program, "run", "--config", s.write("Caddyfile", config(block, rest)))
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir, "HOME="+s.dir)
	s.caddy = program.Start(t, cmd)
	s.caddy.Await(t, "the admin API", func() bool {
		answer, err := s.admin.Get("http://" + adminAddress + "/knock/health")
		if err == nil {
			_ = answer.Body.Close()
		}
		return err == nil && answer.StatusCode == http.StatusOK
	})
	return s
}

func config(block, rest string) string {
	return fmt.Sprintf("{\n\tadmin %s\n\tknock {\n\t\tstore memory\n%s\n\t}\n%s\n}\n", adminAddress, block, rest)
}

// gated is a layer4 server that echoes for those who are in for the service, and
// hangs up on others.
const gated = `layer4 {
	:2222 {
		@in knocked ssh
		route @in {
			echo
		}
	}
}`

func (s *site) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// sum adds up the counters of a name whose labels contain all the texts.
func (s *site) sum(name string, labels ...string) int {
	s.t.Helper()
	answer, err := s.admin.Get("http://" + adminAddress + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	total := 0
lines:
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, name+"{") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(line, l) {
				continue lines
			}
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			s.t.Fatal(err)
		}
		total += int(v)
	}
	return total
}

// decided is how many knocks ended with the reason, "" for any.
func (s *site) decided(reason string) int {
	s.t.Helper()
	if reason == "" {
		return s.sum("caddy_knock_knocks_total")
	}
	return s.sum("caddy_knock_knocks_total", `reason="`+reason+`"`)
}

// expect does something that makes count knocks end with the reason.
func (s *site) expect(reason string, count int, do func()) {
	s.t.Helper()
	before, all := s.decided(reason), s.decided("")
	do()
	s.caddy.Await(s.t, "a decision", func() bool { return s.decided("") >= all+count })
	if got := s.decided(reason) - before; got != count {
		s.t.Errorf("%d knocks ended with %s, want %d\n%s", got, reason, count, s.caddy.Log.Tail(1500))
	}
}

// revoke ends all grants.
func (s *site) revoke() {
	s.t.Helper()
	req, _ := http.NewRequest(http.MethodDelete, "http://"+adminAddress+"/knock/grants?all=true", nil)
	answer, err := s.admin.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK {
		s.t.Fatalf("revoking: %s", text)
	}
}

// isIn reports whether the gated port serves somebody who comes from the
// namespace.
func (s *site) isIn(ns *netlab.NS, server netip.Addr) bool {
	s.t.Helper()
	conn, err := ns.Dial("tcp", netip.AddrPortFrom(server, 2222).String(), 10*time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	return echoes(conn)
}

func echoes(conn net.Conn) bool {
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return false
	}
	b := make([]byte, 5)
	_, err := io.ReadFull(conn, b)
	return err == nil && string(b) == "hello"
}

// send sends datagrams to the knock port, from one socket in the namespace.
func (s *site) send(ns *netlab.NS, server netip.Addr, payloads ...[]byte) {
	s.t.Helper()
	c := s.dialUDP(ns, netip.AddrPortFrom(server, 62201))
	defer c.Close()
	for _, b := range payloads {
		if _, err := c.Write(b); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *site) dialUDP(ns *netlab.NS, to netip.AddrPort) *net.UDPConn {
	s.t.Helper()
	var c *net.UDPConn
	var err error
	ns.Do(func() { c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)) })
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func secret(text string) knockcore.Secret { return knockcore.NewSecret([]byte(text)) }

func credential(id, text string) *knockcore.Credential {
	s := secret(text)
	return &knockcore.Credential{Client: &knockcore.Client{ID: id}, Secret: s, MAC: knockcore.NewMAC(s.Bytes())}
}
