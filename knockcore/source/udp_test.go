// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	testprogram "github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// serve runs a socket into a channel; end ends it and returns what came last.
func serve(t *testing.T, u *UDP, room int) (packets <-chan Packet, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c, done := make(chan Packet, room), make(chan error, 1)
	go func() {
		done <- u.Serve(ctx, func(p *Packet) {
			var kept Packet
			kept.copyFrom(p)
			select {
			case c <- kept:
			default:
			}
		})
	}()
	var ended bool
	end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
		_ = u.Close()
	}
	t.Cleanup(end)
	return c, end
}

func listen(t *testing.T, address string, others ...*UDP) *UDP {
	t.Helper()
	u, err := ListenUDP(netip.MustParseAddrPort(address), others...)
	if errors.Is(err, ErrNotHere) {
		if os.Getenv("KNOCK_REQUIRE_REAL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	return u
}

func send(t *testing.T, to netip.AddrPort, payload []byte) netip.AddrPort {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func receive(t *testing.T, packets <-chan Packet) Packet {
	t.Helper()
	select {
	case p := <-packets:
		return p
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		return Packet{}
	}
}

func TestUDPDelivers(t *testing.T) {
	for name, c := range map[string]struct{ listen, to string }{
		"IPv4":          {"127.0.0.1:0", "127.0.0.1"},
		"IPv6":          {"[::1]:0", "::1"},
		"all of IPv4":   {"0.0.0.0:0", "127.0.0.1"},
		"all of IPv4 2": {"0.0.0.0:0", "127.1.2.3"},
		"all of IPv6":   {"[::]:0", "::1"},
	} {
		t.Run(name, func(t *testing.T) {
			u := listen(t, c.listen)
			packets, _ := serve(t, u, 100)
			to := netip.AddrPortFrom(netip.MustParseAddr(c.to), u.Local().Port())
			for _, payload := range [][]byte{{}, []byte("x"), bytes.Repeat([]byte("y"), MaxPayload), bytes.Repeat([]byte("z"), 9000)} {
				before := time.Now()
				from := send(t, to, payload)
				p := receive(t, packets)
				want := payload[:min(len(payload), MaxPayload+1)]
				if p.From != from || p.Protocol != knockcore.UDP || !bytes.Equal(p.Payload, want) || p.At.Before(before) {
					t.Errorf("%d bytes of %v: got %d of %v at %v", len(payload), from, len(p.Payload), p.From, p.At)
				}
				if p.To != to && (p.To.Addr().IsValid() || p.To.Port() != to.Port()) {
					t.Errorf("it was sent to %v, not to %v", to, p.To)
				}
			}
		})
	}
}

// TestFamiliesSideBySide: 0.0.0.0 and :: are two sockets, neither takes the
// other's packets.
func TestFamiliesSideBySide(t *testing.T) {
	port := uint16(testprogram.FreePort(t)) // of both
	four := listen(t, netip.AddrPortFrom(netip.IPv4Unspecified(), port).String())
	six := listen(t, netip.AddrPortFrom(netip.IPv6Unspecified(), port).String())
	fours, _ := serve(t, four, 10)
	sixes, _ := serve(t, six, 10)
	send(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), four.Local().Port()), []byte("4"))
	send(t, netip.AddrPortFrom(netip.MustParseAddr("::1"), four.Local().Port()), []byte("6"))
	if p := receive(t, fours); string(p.Payload) != "4" || !p.From.Addr().Is4() {
		t.Errorf("got %q of %v", p.Payload, p.From)
	}
	if p := receive(t, sixes); string(p.Payload) != "6" || !p.From.Addr().Is6() {
		t.Errorf("got %q of %v", p.Payload, p.From)
	}
}

// TestAddressTaken: an address that somebody else has, or that we have ourselves,
// is an error that says so.
func TestAddressTaken(t *testing.T) {
	u := listen(t, "127.0.0.1:0")
	for _, others := range [][]*UDP{nil, {u}} {
		if second, err := ListenUDP(u.Local(), others...); err == nil {
			_ = second.Close()
			t.Error("two sockets share an address")
		}
	}
}

// TestEndReadsWhatIsThere: what the kernel has taken in when a socket ends is
// still delivered.
func TestEndReadsWhatIsThere(t *testing.T) {
	u := listen(t, "127.0.0.1:0")
	for range 100 {
		send(t, u.Local(), []byte("before anybody reads"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n := 0
	if err := u.Serve(ctx, func(*Packet) { n++ }); err != nil {
		t.Fatal(err)
	}
	if n != 100 {
		t.Errorf("%d of 100 were delivered", n)
	}
}

func TestServeEndsWhenClosed(t *testing.T) {
	u := listen(t, "127.0.0.1:0")
	done := make(chan error)
	go func() { done <- u.Serve(context.Background(), func(*Packet) {}) }()
	_ = u.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestReachOverlaps(t *testing.T) {
	at := func(a string, low, high uint16, socket bool, m ...knockcore.Method) Reach {
		r := Reach{Ports: knockcore.PortRange{Protocol: knockcore.UDP, Low: low, High: high}, Socket: socket, Methods: knockcore.NewMethodSet(m...)}
		if a != "" {
			r.Addr = netip.MustParseAddr(a)
		}
		return r
	}
	udp, passive := knockcore.MethodUDP, knockcore.MethodUDPPassive
	for i, c := range []struct {
		a, b Reach
		want bool
	}{
		{at("0.0.0.0", 1, 1, true, udp), at("0.0.0.0", 1, 1, true, udp), true},
		{at("0.0.0.0", 1, 1, true, udp), at("192.0.2.1", 1, 1, true, udp), true},
		{at("0.0.0.0", 1, 1, true, udp), at("192.0.2.1", 1, 1, true, knockcore.MethodFwknop), true},
		{at("0.0.0.0", 1, 1, true, udp), at("0.0.0.0", 2, 2, true, udp), false},
		{at("0.0.0.0", 1, 1, true, udp), at("::", 1, 1, true, udp), false},
		{at("192.0.2.1", 1, 1, true, udp), at("192.0.2.2", 1, 1, true, udp), false},
		{at("192.0.2.1", 5, 5, true, udp), at("", 1, 9, false, udp), true},
		{at("192.0.2.1", 5, 5, true, udp), at("", 1, 9, false, passive), false},
		{at("192.0.2.1", 5, 5, true, udp), at("", 6, 9, false, udp), false},
	} {
		if c.a.Overlaps(c.b) != c.want || c.b.Overlaps(c.a) != c.want {
			t.Errorf("case %d: want %v", i, c.want)
		}
	}
}
