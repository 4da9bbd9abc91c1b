// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

func init() { caddy.RegisterModule(new(PacketConn)) }

// PacketConn drops the datagrams of addresses without a grant before QUIC sees
// them: for HTTP/3, what the listener wrapper of the same name is for TCP. When the
// last grant of an address ends, its HTTP/3 connections go silent.
//
// Caddy keeps its HTTP/3 sockets over reloads, with the wrappers that they got when
// they were opened. A reload may change the options here; it cannot put the wrapper
// on a socket that is open without it (loading fails then, and says so), and a
// wrapper that a reload leaves out stays until Caddy is restarted.
type PacketConn struct {
	Door

	places []listenPlace
}

// CaddyModule returns the Caddy module information.
func (*PacketConn) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.packetconns.knocked", New: func() caddy.Module { return new(PacketConn) }}
}

// Provision sets the wrapper up.
func (p *PacketConn) Provision(ctx caddy.Context) (err error) {
	if err = p.provision(ctx); err != nil {
		return err
	}
	if p.places, err = http3Places(ctx); err == nil {
		err = checkOpen(p.places)
	}
	if err != nil {
		return knockapp.Placed(p.At, err)
	}
	packetDoors.add(p)
	return nil
}

// Cleanup forgets the wrapper; the zero value's does nothing.
func (p *PacketConn) Cleanup() error {
	packetDoors.remove(p)
	return nil
}

// WrapPacketConn puts the door in front of a socket.
func (p *PacketConn) WrapPacketConn(pc net.PacketConn) net.PacketConn {
	c := &doorPacketConn{PacketConn: pc}
	c.door.Store(p)
	packetDoors.open(c)
	return c
}

// doorPacketConn is a socket with a door in front.
type doorPacketConn struct {
	net.PacketConn
	door   atomic.Pointer[PacketConn]
	orphan sync.Once // says that the door stands although it is not configured
	ended  bool      // reading failed last time; the reader's
}

// ReadFrom returns the next datagram of somebody who may come in.
func (c *doorPacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, addr, err := c.PacketConn.ReadFrom(b)
		if err != nil {
			// Caddy closes what is below, and that shows only here.
			packetDoors.closed(c)
			c.ended = true
			return n, addr, err
		}
		if c.ended {
			c.ended = false
			packetDoors.open(c)
		}
		door := c.current()
		if door.lets(context.Background(), addrOf(addr)) {
			return n, addr, nil
		}
		door.refused("packetconn", addr)
	}
}

// current is the door of the configuration that runs. The socket outlives
// configurations, and with it the door that it was opened with.
func (c *doorPacketConn) current() *PacketConn {
	door := c.door.Load()
	mod, err := caddy.ActiveContext().AppIfConfigured("knock")
	if err != nil {
		return door
	}
	app, _ := mod.(*knockapp.App)
	if app == nil || app == door.App || app.Running() == nil {
		return door
	}
	if next := packetDoors.find(app, c.LocalAddr()); next != nil {
		c.door.Store(next)
		return next
	}
	c.orphan.Do(func() {
		door.logger.Warn("this configuration does not guard HTTP/3 any more, but its socket stays guarded until Caddy is restarted",
			zap.Stringer("address", c.LocalAddr()))
	})
	return door
}

// socket is what the wrapped connection is in the end.
func (c *doorPacketConn) socket() net.PacketConn {
	pc := c.PacketConn
	for {
		wrapped, ok := pc.(interface{ Unwrap() net.PacketConn })
		if !ok {
			return pc
		}
		pc = wrapped.Unwrap()
	}
}

var errNoSocket = errors.New("not a UDP socket")

// SyscallConn lets QUIC set options of the socket.
func (c *doorPacketConn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.socket().(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errNoSocket
}

// SetReadBuffer sets the size of the socket's receive buffer.
func (c *doorPacketConn) SetReadBuffer(bytes int) error {
	if s, ok := c.socket().(interface{ SetReadBuffer(int) error }); ok {
		return s.SetReadBuffer(bytes)
	}
	return errNoSocket
}

// SetWriteBuffer sets the size of the socket's send buffer.
func (c *doorPacketConn) SetWriteBuffer(bytes int) error {
	if s, ok := c.socket().(interface{ SetWriteBuffer(int) error }); ok {
		return s.SetWriteBuffer(bytes)
	}
	return errNoSocket
}

// Interface guards
var (
	_ caddy.Provisioner       = (*PacketConn)(nil)
	_ caddy.CleanerUpper      = (*PacketConn)(nil)
	_ caddy.PacketConnWrapper = (*PacketConn)(nil)
	_ caddyfile.Unmarshaler   = (*PacketConn)(nil)
)
