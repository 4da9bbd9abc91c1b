// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package ipset

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/firewallmod/internal/iptables"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

func options(netns int) iptables.Config {
	return iptables.Config{Options: engine.Options{NetNS: netns, CheckInterval: 200 * time.Millisecond}}
}

var backend = coretest.FirewallBackend{
	New:      func(netns int) (knockcore.Firewall, error) { return New(Config{Config: options(netns)}) },
	Programs: []string{"iptables", "ipset"},
	Breaks: map[string][]string{
		"flush all":         {"iptables", "-w", "-F"},
		"flush a set":       {"ipset", "flush", "CADDY_KNOCK-i4-ssh"},
		"somebody's entry":  {"ipset", "add", "CADDY_KNOCK-i4-ssh", "198.51.100.0/24"},
		"an entry for ever": {"ipset", "-exist", "add", "CADDY_KNOCK-i6-ssh", "2001:db8:0:1::2", "timeout", "0"},
		"somebody's accept": {"ip6tables", "-w", "-I", "CADDY_KNOCK-ssh", "-j", "ACCEPT"},
	},
	Resolution: time.Second,
}

func TestMain(m *testing.M) {
	coretest.FirewallProcess(backend)
	os.Exit(m.Run())
}

func TestSuite(t *testing.T) { coretest.FirewallSuite(t, backend) }

func window(prefix, service string, length time.Duration) knockcore.Window {
	return knockcore.Window{Prefix: netip.MustParsePrefix(prefix), Service: service, Expires: time.Now().Add(length)}
}

func services(names ...string) (list []*knockcore.Service) {
	for i, name := range names {
		list = append(list, &knockcore.Service{Name: name, Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: uint16(22 + i), High: uint16(22 + i)}}})
	}
	return list
}

// TestOperatorsSets opens windows in sets that stand already, with rules of the
// operator's.
func TestOperatorsSets(t *testing.T) {
	netlab.Need(t, "iptables", "ipset")
	lab := netlab.New(t)
	host, guest := lab.NS("host"), lab.NS("guest")
	lab.Link(host, []string{"192.0.2.1/24", "2001:db8::1/64"}, guest, []string{"192.0.2.2/24", "2001:db8::2/64"})
	host.Echo("tcp", "192.0.2.1:22")
	host.Echo("tcp", "[2001:db8::1]:22")
	start := func(sets ...string) (*Engine, error) {
		e, err := New(Config{Config: options(host.FD()), Sets: sets})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Stop(context.Background(), knockcore.ExitRemove) })
		return e, e.Setup(t.Context(), services("ssh", "web"))
	}
	host.Run("ipset", "create", "plain", "hash:ip")
	host.Run("ipset", "create", "pairs", "hash:ip,port", "timeout", "0")
	for _, name := range []string{"missing", "plain", "pairs"} {
		if _, err := start(name); !errors.Is(err, ErrSet) {
			t.Errorf("set %s: %v", name, err)
		}
	}
	host.Run("ipset", "create", "ok4", "hash:ip", "timeout", "0")
	host.Run("ipset", "create", "ok6", "hash:net", "family", "inet6", "timeout", "0")
	host.Run("ipset", "add", "ok4", "203.0.113.7")
	for program, set := range map[string]string{"iptables": "ok4", "ip6tables": "ok6"} {
		host.Run(program, "-A", "INPUT", "-p", "tcp", "--dport", "22", "-m", "set", "!", "--match-set", set, "src", "-j", "DROP")
	}
	e, err := start("ok4", "ok6")
	if err != nil {
		t.Fatal(err)
	}
	want := func(state netlab.State, when string) {
		t.Helper()
		for _, address := range []string{"192.0.2.1:22", "[2001:db8::1]:22"} {
			if got := guest.ProbeFor("tcp", address, state); got != state {
				t.Errorf("%s: %s is %s, want %s", when, address, got, state)
			}
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want(netlab.Filtered, "at first")
	do(e.Open(t.Context(), window("192.0.2.2/32", "ssh", time.Hour), window("2001:db8::/64", "ssh", time.Hour)))
	do(e.Open(t.Context(), window("192.0.2.2/32", "web", time.Minute)))
	want(netlab.Open, "after the knock")
	do(e.Close(t.Context(), window("192.0.2.2/32", "ssh", 0)))
	want(netlab.Open, "while another window of the address is open")
	if err := e.Open(t.Context(), window("192.0.2.0/24", "ssh", time.Hour)); !errors.Is(err, ErrSet) {
		t.Errorf("a prefix in hash:ip: %v", err)
	}
	host.Run("ipset", "flush", "ok6")
	lab.Eventually(15*time.Second, "the entry to stand again", func() bool { return guest.Probe("tcp", "[2001:db8::1]:22") == netlab.Open })
	do(e.Stop(t.Context(), knockcore.ExitClose))
	want(netlab.Filtered, "in the end")
	host.Run("ipset", "test", "ok4", "203.0.113.7") // the operator's own entry
}

func BenchmarkOpen(b *testing.B) {
	netlab.Need(b, "iptables", "ipset")
	c := options(netlab.New(b).NS("host").FD())
	c.CheckInterval = time.Hour
	e, err := New(Config{Config: c})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = e.Stop(context.Background(), knockcore.ExitRemove) }()
	if err := e.Setup(b.Context(), services("ssh")); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		if err := e.Open(b.Context(), knockcore.Window{Prefix: p, Service: "ssh", Expires: time.Now().Add(time.Hour)}); err != nil {
			b.Fatal(err)
		}
	}
}
