// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	testprogram "github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// TestAddressChanges: a configuration that listens more narrowly or more widely
// than the one before gets its socket while that one still has its own, and what
// comes in between is delivered by one of the two.
func TestAddressChanges(t *testing.T) {
	for name, c := range map[string]struct{ before, after string }{
		"narrower": {"0.0.0.0", "127.0.0.1"},
		"wider":    {"127.0.0.1", "0.0.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			before := listen(t, fmt.Sprint(c.before, ":", testprogram.FreePort(t))) // free at all addresses
			address := netip.AddrPortFrom(netip.MustParseAddr(c.after), before.Local().Port()).String()
			if u, err := ListenUDP(netip.MustParseAddrPort(address)); err == nil {
				_ = u.Close()
				t.Fatal("an address was free that should be taken")
			}
			to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), before.Local().Port())
			send(t, to, []byte("1"))
			after := listen(t, address, before)
			send(t, to, []byte("2"))
			old, endOld := serve(t, before, 10)
			fresh, endFresh := serve(t, after, 10)
			endOld()
			send(t, to, []byte("3"))
			endFresh()
			got := ""
			for _, c := range []<-chan Packet{old, fresh} {
				for len(c) > 0 {
					got += string((<-c).Payload)
				}
			}
			if got != "123" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestAddressChangesUnderLoad: while a socket makes way for another one, no packet
// is lost.
func TestAddressChangesUnderLoad(t *testing.T) {
	socket := listen(t, fmt.Sprint("0.0.0.0:", testprogram.FreePort(t))) // also while it is that of one address only
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), socket.Local().Port())
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stop, sent := make(chan struct{}), make(chan int64)
	go func() {
		for n := int64(0); ; {
			select {
			case <-stop:
				sent <- n
				return
			default:
			}
			if _, err := c.Write([]byte("x")); err == nil {
				n++
			}
			time.Sleep(10 * time.Microsecond) // no more than the buffers hold
		}
	}()
	var got atomic.Int64
	serve := func(u *UDP) (end func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- u.Serve(ctx, func(*Packet) { got.Add(1) }) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			_ = u.Close()
		}
	}
	end := serve(socket)
	for i := range 100 {
		address := netip.IPv4Unspecified()
		if i%2 == 0 {
			address = to.Addr()
		}
		next := listen(t, netip.AddrPortFrom(address, to.Port()).String(), socket)
		endNext := serve(next)
		end()
		socket, end = next, endNext
	}
	close(stop)
	n := <-sent
	end()
	if lost := n - got.Load() - int64(socket.Dropped()); lost != 0 {
		t.Errorf("%d of %d were lost", lost, n)
	}
}

// TestPortIsNotShared: sockets let nobody else bind their address once they stand.
func TestPortIsNotShared(t *testing.T) {
	before := listen(t, fmt.Sprint("0.0.0.0:", testprogram.FreePort(t)))
	after := listen(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), before.Local().Port()).String(), before)
	for _, u := range []*UDP{before, after} {
		c, err := u.conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Control(func(fd uintptr) {
			for _, option := range []int{unix.SO_REUSEPORT, unix.SO_REUSEADDR} {
				if on, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option); err != nil || on != 0 {
					t.Errorf("%v: option %d is %d, %v", u.Local(), option, on, err)
				}
			}
		})
	}
}

// TestKernelDropsAreCounted fills the socket's buffer before anybody reads.
func TestKernelDropsAreCounted(t *testing.T) {
	u := listen(t, "127.0.0.1:0")
	r, err := newReader(u) // counting begins
	if err != nil {
		t.Fatal(err)
	}
	if err := u.conn.SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	const sent = 200
	for range sent {
		send(t, u.Local(), make([]byte, 1000))
	}
	n := 0
	r.drain(func(*Packet) { n++ })
	send(t, u.Local(), nil) // the counter comes with the next packet
	r.drain(func(*Packet) { n++ })
	if n >= sent || u.Dropped() != uint64(sent+1-n) {
		t.Errorf("%d sent, %d delivered, %d counted as lost", sent+1, n, u.Dropped())
	}
}
