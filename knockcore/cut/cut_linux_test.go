// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package cut_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/cut"
	"github.com/caddy-knock/caddy-knock/knockcore/nft"
)

// echoServer is a program of its own, so that it has file descriptors of its own.
const echoServer = `
import selectors, socket, sys
sel = selectors.DefaultSelector()
for port in sys.argv[1:]:
    s = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    s.setblocking(False)
    sel.register(s, selectors.EVENT_READ, "listener")
print("ready", flush=True)
while True:
    for key, _ in sel.select():
        if key.data:
            try:
                while True:
                    c, _ = key.fileobj.accept()
                    c.setblocking(False)
                    sel.register(c, selectors.EVENT_READ, None)
            except BlockingIOError:
                pass
            continue
        try:
            b = key.fileobj.recv(4096)
            if b:
                key.fileobj.send(b)
                continue
        except OSError:
            pass
        sel.unregister(key.fileobj)
        key.fileobj.close()
`

// place is a host with a service of its own (tcp/22) and one that it publishes
// from a container by DNAT (tcp/80 there), and clients on many addresses.
type place struct {
	*netlab.Lab
	clients, host *netlab.NS
	services      []*knockcore.Service
	gate          *nft.Engine
	engine        *cut.Engine
	held          func(service string, remote netip.AddrPort) bool
	results       chan cut.Result
}

const addresses = 50 // of clients, in each family

func client4(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}) }
func client6(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8::1:%x", i+1)) }

func newPlace(t *testing.T) *place {
	netlab.Need(t, "nft", "conntrack", "python3")
	p := &place{Lab: netlab.New(t), results: make(chan cut.Result, 100)}
	p.clients, p.host = p.NS("clients"), p.NS("host")
	container := p.NS("container")
	dev, _ := p.Link(p.clients, []string{"192.0.2.2/24", "2001:db8::2/64"}, p.host, []string{"192.0.2.1/24", "2001:db8::1/64"})
	p.Link(p.host, []string{"172.17.0.1/16", "fd00:17::1/64"}, container, []string{"172.17.0.2/16", "fd00:17::2/64"})
	for i := range addresses {
		p.clients.Addr(dev, client4(i).String()+"/24")
		p.clients.Addr(dev, client6(i).String()+"/64")
	}
	p.host.Forward()
	container.DefaultRoute("172.17.0.1", "fd00:17::1")
	p.host.RunInput(`table inet docker {
		chain pub { type nat hook prerouting priority dstnat; fib daddr type local tcp dport 8080 dnat ip to 172.17.0.2:80; fib daddr type local tcp dport 8080 dnat ip6 to [fd00:17::2]:80; }
	}`, "nft", "-f", "-")
	for ns, port := range map[*netlab.NS]string{p.host: "22", container: "80"} {
		cmd := ns.Command(t.Context(), "python3", "-c", echoServer, port)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("the server: %q, %v", line, err)
		}
	}
	for name, port := range map[string]uint16{"ssh": 22, "app": 8080} {
		p.services = append(p.services, &knockcore.Service{
			Name: name, Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: port, High: port}}, CutOnExpire: true, Firewall: "nft",
		})
	}
	var err error
	if p.gate, err = nft.New(nft.Config{NetNS: p.host.FD()}); err != nil {
		t.Fatal(err)
	}
	if err := p.gate.Setup(t.Context(), p.services); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.gate.Stop(context.Background(), knockcore.ExitRemove) })
	p.engine = cut.New(cut.Config{
		NetNS: p.host.FD(), Done: func(r cut.Result) { p.results <- r },
		Holds: func(service string, remote netip.AddrPort) bool { return p.held(service, remote) },
	})
	t.Cleanup(p.engine.Close)
	return p
}

func (p *place) open(t *testing.T, addr netip.Addr) {
	t.Helper()
	for _, s := range p.services {
		w := knockcore.Window{Prefix: knockcore.AddrPrefix(addr), Service: s.Name, Expires: time.Now().Add(time.Hour)}
		if err := p.gate.Open(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
}

// revoke closes the windows of an address and cuts.
func (p *place) revoke(t *testing.T, addr netip.Addr) {
	t.Helper()
	for _, s := range p.services {
		w := knockcore.Window{Prefix: knockcore.AddrPrefix(addr), Service: s.Name}
		if err := p.gate.Close(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		p.engine.Cut(w.Prefix, s)
	}
}

// flow is a connection that a client holds.
type flow struct {
	net.Conn
	from netip.Addr
	port int
}

func (p *place) dial(t *testing.T, from netip.Addr, port int) flow {
	t.Helper()
	server := "192.0.2.1"
	if from.Is6() {
		server = "2001:db8::1"
	}
	var conn net.Conn
	var err error
	p.clients.Do(func() {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Timeout: 10 * time.Second}
		conn, err = d.DialContext(t.Context(), "tcp", net.JoinHostPort(server, fmt.Sprint(port)))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return flow{conn, from, port}
}

// alive reports whether the flow still answers; of a dead one without a reset
// that costs the wait.
func (f flow) alive(wait time.Duration) bool {
	_ = f.SetDeadline(time.Now().Add(wait))
	if _, err := f.Write([]byte("x")); err != nil {
		return false
	}
	_, err := f.Read(make([]byte, 1))
	return err == nil
}

// TestRevokeOneOfAHundred: of 10,000 held flows of a hundred grants, local and
// through DNAT, those of the revoked grant die and no other.
func TestRevokeOneOfAHundred(t *testing.T) {
	p := newPlace(t)
	var rlimit syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &rlimit)
	each := 50 // flows by address and service
	if int(rlimit.Cur) < 2*addresses*each*2+200 {
		t.Logf("the file limit is %d: fewer flows", rlimit.Cur)
		each = 4
	}
	revoked := map[netip.Addr]bool{client4(7): true, client6(30): true}
	var ended atomic.Bool
	p.held = func(_ string, remote netip.AddrPort) bool { return !ended.Load() || !revoked[remote.Addr()] }
	var flows []flow
	for i := range addresses {
		for _, from := range []netip.Addr{client4(i), client6(i)} {
			p.open(t, from)
			for range each {
				flows = append(flows, p.dial(t, from, 22), p.dial(t, from, 8080))
			}
		}
	}
	for _, f := range flows {
		if !f.alive(20 * time.Second) {
			t.Fatalf("%v: dead from the start", f.RemoteAddr())
		}
	}
	ended.Store(true)
	for addr := range revoked {
		p.revoke(t, addr)
	}
	sockets, entries := 0, 0
	for sockets+entries < 2*each+2*2*each {
		select {
		case r := <-p.results:
			t.Logf("%d sockets, %d entries after %v (%v)", r.Sockets, r.Entries, r.Took, r.Err)
			sockets += r.Sockets
			entries += r.Entries
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%d sockets and %d entries were ended, no more", sockets, entries)
		}
	}
	for _, f := range flows {
		switch dead := revoked[f.from]; {
		case !dead && !f.alive(20*time.Second):
			t.Errorf("%v to %d: dead, though its grant lives", f.from, f.port)
		case dead && f.port == 22: // the reset is on its way
			_ = f.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := f.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v to %d: %v, want a reset", f.from, f.port, err)
			}
		case dead && f.alive(20*time.Millisecond):
			t.Errorf("%v to %d: alive", f.from, f.port)
		}
	}
	left := p.host.Run("conntrack", "-L", "-s", client4(7).String(), "-p", "tcp", "--dport", "8080")
	if strings.Contains(left, "ESTABLISHED") {
		t.Errorf("conntrack still knows %s", left)
	}
}

// TestHeld: what somebody else holds lives on, and so does what only passes by.
func TestHeld(t *testing.T) {
	p := newPlace(t)
	alice, bob := client4(0), client4(1)
	p.open(t, alice)
	p.open(t, bob)
	stays, goes, other := p.dial(t, alice, 22), p.dial(t, alice, 22), p.dial(t, bob, 22)
	for _, f := range []flow{stays, goes, other} { // so that the server has accepted it
		if !f.alive(20 * time.Second) {
			t.Fatalf("%v: dead from the start", f.LocalAddr())
		}
	}
	held := netip.MustParseAddrPort(stays.LocalAddr().String())
	p.held = func(_ string, remote netip.AddrPort) bool { return remote == held || remote.Addr() == bob }
	ssh := p.services[slices.IndexFunc(p.services, func(s *knockcore.Service) bool { return s.Name == "ssh" })]
	p.engine.Cut(netip.MustParsePrefix("192.0.2.0/24"), ssh)
	if r := <-p.results; r.Sockets != 1 || r.Err != nil {
		t.Errorf("%+v", r)
	}
	if !stays.alive(20*time.Second) || !other.alive(20*time.Second) || goes.alive(20*time.Second) {
		t.Error("the wrong ones died")
	}
}

func TestMissing(t *testing.T) {
	netlab.Need(t)
	if err := cut.Missing(0); err != nil {
		t.Error(err)
	}
}

// BenchmarkCut is a look that finds nothing among 2,000 flows.
func BenchmarkCut(b *testing.B) {
	netlab.Need(b)
	lab := netlab.New(b)
	host := lab.NS("host")
	host.Echo("tcp", "127.0.0.1:22")
	for range 1000 {
		c, err := host.Dial("tcp", "127.0.0.1:22", 5*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
	}
	results := make(chan cut.Result)
	e := cut.New(cut.Config{NetNS: host.FD(), Holds: func(string, netip.AddrPort) bool { return true }, Done: func(r cut.Result) { results <- r }})
	defer e.Close()
	s := &knockcore.Service{Name: "ssh", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 22, High: 22}}}
	b.ReportAllocs()
	for b.Loop() {
		e.Cut(netip.MustParsePrefix("192.0.2.1/32"), s)
		if r := <-results; r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}
