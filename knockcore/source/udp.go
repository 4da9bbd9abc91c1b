// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// socketBuffer is what is asked of the kernel for packets that were not read yet,
// in bytes; how much it grants is its business.
const socketBuffer = 4 << 20

// UDP is a Source: a socket that is bound to an address and only ever read.
type UDP struct {
	conn    *net.UDPConn
	local   netip.AddrPort
	dropped atomic.Uint64
}

// ListenUDP opens a socket. The unspecified address of a family stands for all
// addresses of that family only, so that :: and 0.0.0.0 can stand side by side.
//
// If the address is taken by one of others, which are sockets of the
// configuration that is about to end, both stand side by side for the time being:
// the more specific one gets the packets for its address.
func ListenUDP(local netip.AddrPort, others ...*UDP) (*UDP, error) {
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	network := "udp6"
	if local.Addr().Is4() {
		network = "udp4"
	}
	listen := func(control func(network, address string, c syscall.RawConn) error) (*net.UDPConn, error) {
		cfg := net.ListenConfig{Control: control}
		conn, err := cfg.ListenPacket(context.Background(), network, local.String())
		if err != nil {
			return nil, err
		}
		return conn.(*net.UDPConn), nil
	}
	conn, err := listen(nil)
	if err != nil && errors.Is(err, errAddrInUse) {
		if near := neighbours(local, others); len(near) > 0 {
			conn, err = listenBeside(near, listen)
		}
	}
	switch {
	case err == nil:
	case errors.Is(err, errNoFamily):
		return nil, fmt.Errorf("listening on udp %v: %w: %w", local, ErrNotHere, err)
	default:
		return nil, fmt.Errorf("listening on udp %v: %w", local, err)
	}
	u := &UDP{conn: conn, local: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	setSocketBuffer(conn, socketBuffer)
	if u.local.Addr().IsUnspecified() {
		u.tellDestination()
	}
	return u, nil
}

// neighbours are those of others that are in the way of a socket.
func neighbours(local netip.AddrPort, others []*UDP) []*UDP {
	var near []*UDP
	for _, o := range others {
		// Two sockets of one address would share its packets.
		if o != nil && o.local.Port() == local.Port() && o.local.Addr() != local.Addr() && addrsOverlap(o.local.Addr(), local.Addr()) {
			near = append(near, o)
		}
	}
	return near
}

// tellDestination asks for the destination of each packet, where the operating
// system knows how to tell.
func (u *UDP) tellDestination() {
	if u.local.Addr().Is4() {
		_ = ipv4.NewPacketConn(u.conn).SetControlMessage(ipv4.FlagDst, true)
	} else {
		_ = ipv6.NewPacketConn(u.conn).SetControlMessage(ipv6.FlagDst, true)
	}
}

// Local is the address that the socket is bound to.
func (u *UDP) Local() netip.AddrPort { return u.local }

// Dropped implements Source: what the socket's buffer had no room for. It is known
// on Linux only.
func (u *UDP) Dropped() uint64 { return u.dropped.Load() }

// Close implements Source.
func (u *UDP) Close() error { return u.conn.Close() }

// drainLimit bounds how many packets are still read when a socket ends: more than
// its buffer can hold.
const drainLimit = 1 << 16

// Serve implements Source.
func (u *UDP) Serve(ctx context.Context, sink Sink) error {
	stop := context.AfterFunc(ctx, func() { _ = u.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	r, err := newReader(u)
	if err != nil {
		return err
	}
	pause := time.Duration(0)
	for {
		n, err := r.read()
		if n > 0 {
			r.deliver(n, sink)
			pause = 0
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			// Packets that come now are for the socket beside us, if there is one; those
			// that are here are ours, also one that the kernel is just putting down.
			leave(u)
			r.drain(sink)
			time.Sleep(time.Millisecond)
			r.drain(sink)
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			// Out of memory, say, or the error of some packet that was read: it passes.
			pause = min(max(2*pause, time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}

// packet fills in what all packets of the socket have in common.
func (u *UDP) packet(p *Packet, at time.Time, from netip.AddrPort, to netip.Addr, payload []byte) {
	*p = Packet{At: at, From: from, To: u.local, Protocol: knockcore.UDP, Payload: payload}
	if u.local.Addr().IsUnspecified() {
		p.To = netip.AddrPortFrom(to, u.local.Port())
	}
}
