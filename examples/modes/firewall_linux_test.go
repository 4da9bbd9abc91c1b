// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package modes

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// The capabilities CAP_NET_BIND_SERVICE (10) and CAP_NET_ADMIN (12).
var unitCapMask = fmt.Sprintf("%016x", 1<<10|1<<12)

// TestKnockFirewallAuth: the port is closed, opens for the address that knocked,
// and closes behind the frame.
func TestKnockFirewallAuth(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sshd("127.0.0.1")
	s.start("knock-firewall-auth", unitCaps)
	s.unprivileged(unitCapMask)
	ssh := net.JoinHostPort(host4, "2222")
	s.scan("T:22,2222,8080,U:62201,62202", "22/closed/tcp", "2222/filtered/tcp", "8080/closed/tcp", "62201/open|filtered/udp", "62202/closed/udp")
	s.want(s.alice, "tcp", ssh, netlab.Filtered, "before the knock")
	s.wantIn(s.proxied("--knock", "udp"))
	s.lab.Eventually(20*time.Second, "the window to close behind the frame", func() bool {
		return s.alice.Probe("tcp", ssh) == netlab.Filtered
	})
	// Two behind one address: what is alice's closes, what is bob's stays.
	ofAlice, ofBob := newSession(), newSession()
	s.knock("alice", 2222, ofAlice)
	s.knock("bob", 2222, ofBob)
	s.lab.Eventually(20*time.Second, "both knocks to count", func() bool { return s.grants() == 2 })
	s.want(s.stranger, "tcp", net.JoinHostPort(hostToStranger, "2222"), netlab.Filtered, "a stranger, while it is open")
	if _, got := s.say(s.alice, host4, ""); got != isCover {
		t.Errorf("somebody else behind the address meets %q", got)
	}
	conn, got := s.frame(s.alice, host4, "alice", ofAlice)
	if got != isSSHD {
		t.Fatalf("alice meets %q", got)
	}
	s.lab.Eventually(20*time.Second, "alice's grant to end", func() bool { return s.grants() == 1 })
	s.want(s.alice, "tcp", ssh, netlab.Open, "bob's window")
	if _, got := s.frame(s.alice, host4, "bob", ofBob); got != isSSHD {
		t.Errorf("bob meets %q", got)
	}
	s.lab.Eventually(20*time.Second, "the window to close behind the last frame", func() bool {
		return s.alice.Probe("tcp", ssh) == netlab.Filtered
	})
	// What is established lives on: sshd says goodbye to a client that speaks HTTP.
	rest := make([]byte, 1)
	if _, err := conn.Read(rest); err != nil {
		t.Errorf("alice's connection: %v", err)
	}
}

// grants counts the grants to knocks, by asking Caddy on the host.
func (s *site) grants() int {
	s.Helper()
	out := s.host.Run(s.dir+"/caddy", "knock", "grants", "--json")
	return strings.Count(out, `"scope":"session"`)
}

// TestKnockFirewallOnly: services that Caddy has nothing to do with: sshd itself,
// and a container whose port is published, as Docker does it.
func TestKnockFirewallOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sshd("0.0.0.0")
	box := s.container()
	published4, published6 := net.JoinHostPort(host4, "8080"), net.JoinHostPort(host6, "8080")
	s.want(s.alice, "tcp", published4, netlab.Open, "before Caddy starts")
	old, err := s.alice.Dial("tcp", net.JoinHostPort(host4, "22"), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()

	s.start("knock-firewall-only", unitCaps)
	s.unprivileged(unitCapMask)
	s.scan("T:22,8080,8081,U:8080,62201,62202", "22/filtered/tcp", "8080/filtered/tcp", "8081/closed/tcp", "8080/open|filtered/udp", "62201/open|filtered/udp", "62202/closed/udp")
	s.wantOut(s.ssh("-o", "ConnectTimeout=5"))
	// A session from before lives on.
	banner := make([]byte, len(isSSHD))
	_ = old.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := old.Read(banner); err != nil || string(banner) != isSSHD {
		t.Errorf("the connection from before says %q, %v", banner, err)
	}

	s.cli(s.dir, "send", "--client", "alice", "--secret-file", s.dir+"/alice.key", host4, "22")
	s.lab.Eventually(20*time.Second, "the knock to count", func() bool {
		return s.alice.Probe("tcp", net.JoinHostPort(host4, "22")) == netlab.Open
	})
	s.wantIn(s.ssh())
	for _, network := range []string{"tcp", "udp"} {
		s.want(s.alice, network, published4, netlab.Filtered, "the other service")
	}
	for _, to := range []string{host4, "[" + host6 + "]"} {
		s.cli(s.dir, "open", "--client", "alice", "--secret-file", s.dir+"/alice.key", to+":8080")
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, to := range []string{published4, published6} {
			s.want(s.alice, network, to, netlab.Open, "the container, after the knock")
		}
		s.want(s.stranger, network, net.JoinHostPort(hostToStranger, "8080"), netlab.Filtered, "a stranger, meanwhile")
	}
	s.want(s.stranger, "tcp", net.JoinHostPort(hostToStranger, "22"), netlab.Filtered, "a stranger, meanwhile")

	// What is only passing through to the same port numbers is left alone.
	for _, port := range []string{"22", "8080"} {
		for _, at := range []string{stranger4, stranger6} {
			s.stranger.Echo("tcp", net.JoinHostPort(at, port))
			s.stranger.Echo("udp", net.JoinHostPort(at, port))
		}
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, port := range []string{"22", "8080"} {
			s.want(s.alice, network, net.JoinHostPort(stranger4, port), netlab.Open, "through the host")
			s.want(s.alice, network, net.JoinHostPort(stranger6, port), netlab.Open, "through the host")
			s.want(box, network, net.JoinHostPort(stranger4, port), netlab.Open, "from the container to elsewhere")
		}
	}
	// Killed: closed for others, open as long as it was granted.
	s.caddy.Kill()
	s.want(s.alice, "tcp", published4, netlab.Open, "after kill -9")
	s.want(s.stranger, "tcp", net.JoinHostPort(hostToStranger, "8080"), netlab.Filtered, "after kill -9")
}

// container is behind the host, and its port 80 is published as the host's 8080.
func (s *site) container() *netlab.NS {
	s.Helper()
	s.host.Forward()
	box := s.lab.NS("container")
	s.lab.Link(s.host, []string{"172.17.0.1/24", "fd00:17::1/64"}, box, []string{"172.17.0.2/24", "fd00:17::2/64"})
	box.DefaultRoute("172.17.0.1", "fd00:17::1")
	for _, at := range []string{"172.17.0.2:80", "[fd00:17::2]:80"} {
		box.Echo("tcp", at)
		box.Echo("udp", at)
	}
	s.host.RunInput(`table inet docker {
		chain pre {
			type nat hook prerouting priority -100
			fib daddr type local meta l4proto { tcp, udp } th dport 8080 dnat ip to 172.17.0.2:80
			fib daddr type local meta l4proto { tcp, udp } th dport 8080 dnat ip6 to [fd00:17::2]:80
		}
	}`, "nft", "-f", "-")
	return box
}
