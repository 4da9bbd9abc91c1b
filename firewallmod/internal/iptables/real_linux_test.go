// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

type town struct {
	*netlab.Lab
	host, guest *netlab.NS
}

func newTown(t *testing.T, programs ...string) *town {
	t.Helper()
	netlab.Need(t, append(programs, "iptables-nft", "iptables-legacy")...)
	lab := netlab.New(t)
	w := &town{lab, lab.NS("host"), lab.NS("guest")}
	lab.Link(w.host, []string{"192.0.2.1/24", "2001:db8::1/64"}, w.guest, []string{"192.0.2.2/24", "2001:db8::2/64"})
	w.guest.DefaultRoute("192.0.2.1", "2001:db8::1")
	for _, address := range []string{"192.0.2.1:22", "[2001:db8::1]:22"} {
		w.host.Echo("tcp", address)
		w.host.Echo("udp", address)
	}
	return w
}

func ssh() *knockcore.Service {
	return &knockcore.Service{Name: "ssh", Ports: []knockcore.PortRange{
		{Protocol: knockcore.TCP, Low: 22, High: 22}, {Protocol: knockcore.UDP, Low: 22, High: 22},
	}}
}

func window(prefix string, length time.Duration) knockcore.Window {
	return knockcore.Window{Prefix: netip.MustParsePrefix(prefix), Service: "ssh", Expires: time.Now().Add(length)}
}

func (w *town) engine(t *testing.T, c Config) *Engine {
	t.Helper()
	c.NetNS = w.host.FD()
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Stop(context.Background(), knockcore.ExitRemove) })
	return e
}

func (w *town) want(t *testing.T, state netlab.State, when string) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		for _, address := range []string{"192.0.2.1:22", "[2001:db8::1]:22"} {
			if got := w.guest.ProbeFor(network, address, state); got != state {
				t.Errorf("%s: %s %s is %s, want %s", when, network, address, got, state)
			}
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestVariantInUse refuses the iptables in which the rules of the host are not.
func TestVariantInUse(t *testing.T) {
	for variant, other := range map[Variant]string{VariantNFT: "iptables-legacy", VariantLegacy: "iptables-nft"} {
		w := newTown(t)
		w.host.Run(other, "-w", "-A", "INPUT", "-p", "tcp", "--dport", "25", "-j", "DROP")
		err := w.engine(t, Config{Variant: variant}).Setup(t.Context(), []*knockcore.Service{ssh()})
		if !errors.Is(err, ErrVariant) || !strings.Contains(err.Error(), strings.TrimPrefix(other, "iptables-")) {
			t.Errorf("%s while the rules are in %s: %v", variant, other, err)
		}
		w.want(t, netlab.Open, "after the refusal")
		w.host.Run("iptables-"+string(variant), "-w", "-A", "INPUT", "-p", "tcp", "--dport", "26", "-j", "DROP")
		e := w.engine(t, Config{Variant: variant})
		must(t, e.Setup(t.Context(), []*knockcore.Service{ssh()}))
		if list := strings.Join(e.Warnings(), "\n"); !strings.Contains(list, "both nft") {
			t.Errorf("rules in both: warnings %q", list)
		}
		w.want(t, netlab.Filtered, "rules in both")
	}
}

// TestLockHeld bounds the wait for another iptables that holds the lock.
func TestLockHeld(t *testing.T) {
	w := newTown(t)
	lock := filepath.Join(t.TempDir(), "lock")
	t.Setenv("XTABLES_LOCKFILE", lock)
	e := w.engine(t, Config{Variant: VariantLegacy, LockWait: time.Second, Options: engine.Options{CheckInterval: time.Hour}})
	must(t, e.Setup(t.Context(), []*knockcore.Service{ssh()}))
	f, err := os.OpenFile(lock, os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	defer f.Close()
	must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	err = e.Open(t.Context(), window("192.0.2.2/32", time.Hour))
	if err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("while the lock is held: %v", err)
	}
	w.want(t, netlab.Filtered, "while the lock is held")
	done := make(chan error)
	go func() {
		done <- e.Open(t.Context(), window("192.0.2.2/32", time.Hour), window("2001:db8::/64", time.Hour))
	}()
	must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_UN))
	must(t, <-done)
	w.want(t, netlab.Open, "after the lock is free")
}

// TestNoTimeMatch runs with an iptables that knows no match time: windows end
// while we live, and it is said that they do not else.
func TestNoTimeMatch(t *testing.T) {
	w := newTown(t)
	dir := t.TempDir()
	for _, stem := range []string{"iptables", "ip6tables"} {
		for _, what := range []string{"", "-save"} {
			must(t, os.Symlink("/usr/sbin/"+stem+"-nft"+what, filepath.Join(dir, stem+what)))
		}
		must(t, os.WriteFile(filepath.Join(dir, stem+"-restore"), []byte("#!/bin/bash\nrules=$(cat)\ncase $rules in *'-m time'*) echo \"Couldn't load match\" >&2; exit 2;; esac\nprintf '%s\\n' \"$rules\" | exec /usr/sbin/"+stem+"-nft-restore \"$@\"\n"), 0o700))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	e := w.engine(t, Config{Options: engine.Options{CheckInterval: 100 * time.Millisecond}})
	must(t, e.Setup(t.Context(), []*knockcore.Service{ssh()}))
	if list := strings.Join(e.Warnings(), "\n"); !strings.Contains(list, "xt_time") {
		t.Errorf("warnings: %q", list)
	}
	must(t, e.Open(t.Context(), window("192.0.2.2/32", 5*time.Second), window("2001:db8::2/128", 5*time.Second)))
	w.want(t, netlab.Open, "after the knock")
	w.Eventually(20*time.Second, "the engine ends the window", func() bool { return w.guest.Probe("tcp", "192.0.2.1:22") != netlab.Open })
}

// TestForeignChain leaves a chain of our name alone that is not ours.
func TestForeignChain(t *testing.T) {
	w := newTown(t)
	w.host.Run("iptables-nft", "-N", DefaultChain)
	w.host.Run("iptables-nft", "-A", DefaultChain, "-p", "tcp", "--dport", "25", "-j", "DROP")
	if err := w.engine(t, Config{Variant: VariantNFT}).Setup(t.Context(), []*knockcore.Service{ssh()}); !errors.Is(err, ErrForeign) {
		t.Errorf("a chain of somebody's: %v", err)
	}
	must(t, w.engine(t, Config{Variant: VariantNFT, Chain: "OTHER"}).Setup(t.Context(), []*knockcore.Service{ssh()}))
	w.want(t, netlab.Filtered, "with a name of its own")
}

// TestPrerouting closes ports that are forwarded by destination NAT, as Docker
// publishes them; hook input does not, and says so.
func TestPrerouting(t *testing.T) {
	for _, variant := range []Variant{VariantNFT, VariantLegacy} {
		w := newTown(t)
		inner := w.NS("container")
		w.Link(w.host, []string{"172.17.0.1/16"}, inner, []string{"172.17.0.2/16"})
		inner.DefaultRoute("172.17.0.1")
		w.host.Forward()
		inner.Echo("tcp", "172.17.0.2:80")
		w.host.Run("iptables-"+string(variant), "-w", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "-m", "addrtype", "--dst-type", "LOCAL", "--dport", "8080", "-j", "DNAT", "--to-destination", "172.17.0.2:80")
		published := ssh()
		published.Ports = append(published.Ports, knockcore.PortRange{Protocol: knockcore.TCP, Low: 8080, High: 8080})
		want := func(state netlab.State, when string) {
			t.Helper()
			if got := w.guest.ProbeFor("tcp", "192.0.2.1:8080", state); got != state {
				t.Errorf("%s %s: the published port is %s, want %s", variant, when, got, state)
			}
		}
		input := w.engine(t, Config{Variant: variant})
		must(t, input.Setup(t.Context(), []*knockcore.Service{published}))
		want(netlab.Open, "with hook input")
		if list := strings.Join(input.Warnings(), "\n"); !strings.Contains(list, "published by Docker") {
			t.Errorf("warnings: %q", list)
		}
		must(t, input.Stop(t.Context(), knockcore.ExitRemove))
		e := w.engine(t, Config{Variant: variant, Hook: HookPrerouting})
		must(t, e.Setup(t.Context(), []*knockcore.Service{published}))
		want(netlab.Filtered, "with hook prerouting")
		w.want(t, netlab.Filtered, "with hook prerouting")
		must(t, e.Open(t.Context(), window("192.0.2.2/32", time.Hour), window("2001:db8::2/128", time.Hour)))
		want(netlab.Open, "after the knock")
		w.want(t, netlab.Open, "after the knock")
	}
}

// TestReject refuses strangers as a closed port does.
func TestReject(t *testing.T) {
	w := newTown(t)
	e := w.engine(t, Config{Variant: VariantNFT, RejectAll: true})
	must(t, e.Setup(t.Context(), []*knockcore.Service{ssh()}))
	w.want(t, netlab.Closed, "with reject")
	must(t, e.Open(t.Context(), window("192.0.2.2/32", time.Hour), window("2001:db8::2/128", time.Hour)))
	w.want(t, netlab.Open, "after the knock")
}

// TestRemove takes away what a process left, and not what one keeps.
func TestRemove(t *testing.T) {
	w := newTown(t)
	c := Config{Variant: VariantNFT, Options: engine.Options{CheckInterval: 100 * time.Millisecond}}
	e := w.engine(t, c)
	must(t, e.Setup(t.Context(), []*knockcore.Service{ssh()}))
	remove := func() (removed bool, err error) {
		w.host.Do(func() { removed, err = Remove(t.Context(), c) })
		return removed, err
	}
	if _, err := remove(); !errors.Is(err, ErrBusy) {
		t.Errorf("while an engine keeps the gate: %v", err)
	}
	must(t, e.Stop(t.Context(), knockcore.ExitKeep))
	if removed, err := remove(); err != nil || !removed {
		t.Errorf("removed %v, %v", removed, err)
	}
	w.want(t, netlab.Open, "after removing")
	if out := w.host.Run("iptables-nft", "-S"); strings.Contains(out, DefaultChain) {
		t.Errorf("left: %s", out)
	}
}

// TestUFW opens what ufw denies, and stands again after ufw was reloaded.
func TestUFW(t *testing.T) {
	w := newTown(t, "ufw")
	// ufw keeps its state in files: the namespace gets its own.
	dir := t.TempDir()
	ufw := func(args string) {
		t.Helper()
		w.host.Run("unshare", "-m", "sh", "-c", "mkdir -p "+dir+"/etc "+dir+"/var && { [ -d "+dir+"/etc/ufw ] || cp -a /etc/ufw /etc/default "+dir+"/etc/; }; "+
			"mount --bind "+dir+"/etc/ufw /etc/ufw && mount --bind "+dir+"/etc/default /etc/default && ufw "+args)
	}
	ufw("--force enable")
	w.want(t, netlab.Filtered, "with ufw alone")
	e := w.engine(t, Config{Options: engine.Options{CheckInterval: 100 * time.Millisecond}})
	must(t, e.Setup(t.Context(), []*knockcore.Service{ssh()}))
	must(t, e.Open(t.Context(), window("192.0.2.2/32", time.Hour), window("2001:db8::2/128", time.Hour)))
	w.want(t, netlab.Open, "a window where ufw denies")
	ufw("allow 22")
	must(t, e.Check(t.Context()))
	must(t, e.Close(t.Context(), window("192.0.2.2/32", 0), window("2001:db8::2/128", 0)))
	w.want(t, netlab.Filtered, "closed where ufw allows")
	must(t, e.Open(t.Context(), window("192.0.2.2/32", time.Hour), window("2001:db8::2/128", time.Hour)))
	ufw("reload")
	must(t, e.Check(t.Context()))
	w.want(t, netlab.Open, "after ufw was reloaded")
	ufw("disable")
	must(t, e.Check(t.Context()))
	must(t, e.Close(t.Context(), window("192.0.2.2/32", 0), window("2001:db8::2/128", 0)))
	w.want(t, netlab.Filtered, "closed after ufw is gone")
}

// TestRefusals are what iptables can't do: it says so before anything is touched.
func TestRefusals(t *testing.T) {
	w := newTown(t)
	cut, routed := ssh(), ssh()
	cut.CutOnExpire = true
	routed.Destinations = []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}
	e := w.engine(t, Config{Variant: VariantNFT})
	for what, s := range map[string]*knockcore.Service{"on_expire cut": cut, "destinations": routed} {
		if err := e.Setup(t.Context(), []*knockcore.Service{s}); !errors.Is(err, engine.ErrUnsupported) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, e.Setup(t.Context(), []*knockcore.Service{ssh()}))
	far := window("192.0.2.2/32", time.Hour)
	far.Expires = latest.Add(time.Hour)
	for what, bad := range map[string]knockcore.Window{"everybody": window("0.0.0.0/0", time.Hour), "after 2038": far} {
		if err := e.Open(t.Context(), bad); !errors.Is(err, engine.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, variant := range []Variant{VariantNFT, VariantLegacy} {
		b.Run(string(variant), func(b *testing.B) {
			netlab.Need(b, "iptables")
			lab := netlab.New(b)
			e, err := New(Config{Variant: variant, Options: engine.Options{NetNS: lab.NS("host").FD()}})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = e.Stop(context.Background(), knockcore.ExitRemove) }()
			if err := e.Setup(b.Context(), []*knockcore.Service{ssh()}); err != nil {
				b.Fatal(err)
			}
			for i := 0; b.Loop(); i++ {
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
				if err := e.Open(b.Context(), knockcore.Window{Prefix: p, Service: "ssh", Expires: time.Now().Add(time.Hour)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
