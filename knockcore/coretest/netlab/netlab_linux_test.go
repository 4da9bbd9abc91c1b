// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestProbeStates(t *testing.T) {
	Need(t, "nft")
	lab := New(t)
	host, guest := lab.NS("host"), lab.NS("guest")
	lab.Link(host, []string{"192.0.2.1/24", "2001:db8::1/64"}, guest, []string{"192.0.2.2/24", "2001:db8::2/64"})
	for _, ip := range []string{"192.0.2.1", "2001:db8::1"} {
		host.Echo("tcp", net.JoinHostPort(ip, "22"))
		host.Echo("udp", net.JoinHostPort(ip, "22"))
	}
	host.RunInput(`table inet t {
		chain c {
			type filter hook input priority 0
			meta l4proto { tcp, udp } th dport 23 drop
		}
	}`, "nft", "-f", "-")
	for _, network := range []string{"tcp", "udp"} {
		for _, ip := range []string{"192.0.2.1", "2001:db8::1"} {
			for port, want := range map[string]State{"22": Open, "23": Filtered, "24": Closed} {
				if got := guest.ProbeFor(network, net.JoinHostPort(ip, port), want); got != want {
					t.Errorf("%s %s port %s is %s, want %s", network, ip, port, got, want)
				}
			}
		}
	}
	if got := guest.Probe("tcp", "203.0.113.1:22"); got != Failed {
		t.Errorf("a port without a route is %s, want %s", got, Failed)
	}
	if got, err := guest.ProbeFrom("udp", "192.0.2.2", "192.0.2.1:22", patience); got != Open {
		t.Errorf("probe with a source address: %s %v", got, err)
	}
}

func TestCleanup(t *testing.T) {
	Need(t)
	var name string
	t.Run("inner", func(t *testing.T) {
		n := New(t).NS("short")
		name = n.Name
		if _, err := os.Stat(filepath.Join(netnsDir, name)); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := os.Stat(filepath.Join(netnsDir, name)); !os.IsNotExist(err) {
		t.Errorf("namespace %s outlived its test: %v", name, err)
	}
}
