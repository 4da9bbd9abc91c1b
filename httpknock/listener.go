// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

func init() { caddy.RegisterModule(new(Listener)) }

// Listener refuses connections from addresses without a grant as soon as they are
// accepted: strangers see no certificate and no answer, the connection is reset. It
// must stand before the wrapper `tls`; behind `proxy_protocol`, it goes by the
// address that the proxy names.
//
// A connection that was let in stays when its grant ends; the matcher `knocked`
// looks at each request.
//
// HTTP/3 runs over UDP and would go past it: loading fails if a server that is
// wrapped serves it, unless the wrapper of the same name among
// `packet_conn_wrappers` guards it.
type Listener struct {
	Door
}

// CaddyModule returns the Caddy module information.
func (*Listener) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.listeners.knocked", New: func() caddy.Module { return new(Listener) }}
}

// Provision sets the wrapper up.
func (l *Listener) Provision(ctx caddy.Context) error {
	if err := l.provision(ctx); err != nil {
		return err
	}
	return knockapp.Placed(l.At, checkServer(ctx))
}

// WrapListener puts the door in front of a listener.
func (l *Listener) WrapListener(ln net.Listener) net.Listener { return &doorListener{ln, &l.Door} }

type doorListener struct {
	net.Listener
	door *Door
}

// Accept returns the next connection that may come in.
func (l *doorListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, plain := conn.(*net.TCPConn)
		if !plain || l.door.App.Running() == nil {
			// Its address may take time to find (PROXY protocol), or the app to start; both
			// must not stop the others.
			return &lateConn{Conn: conn, door: l.door}, nil
		}
		if l.door.lets(context.Background(), addrOf(tcp.RemoteAddr())) {
			return conn, nil
		}
		l.door.refuse(conn)
	}
}

// refuse ends a connection at once, without leaving anything of it here.
func (d *Door) refuse(conn net.Conn) {
	if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
	d.refused("listener", conn.RemoteAddr())
}

// lateConn is a connection on which the door is asked when it is first used.
type lateConn struct {
	net.Conn
	door *Door
	once sync.Once
	err  error
}

var errNoGrant = errors.New("the address holds no grant")

func (c *lateConn) check() error {
	c.once.Do(func() {
		if !c.door.lets(context.Background(), addrOf(c.Conn.RemoteAddr())) {
			c.err = errNoGrant
			c.door.refuse(c.Conn)
		}
	})
	return c.err
}

// Read implements net.Conn.
func (c *lateConn) Read(b []byte) (int, error) {
	if err := c.check(); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// Write implements net.Conn.
func (c *lateConn) Write(b []byte) (int, error) {
	if err := c.check(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// UnmarshalCaddyfile reads the wrapper. Syntax:
//
//	knocked [<service...>] {
//		services <name...>
//		clients <id...>
//		allow <address|prefix|private_ranges...>
//	}
func (d *Door) UnmarshalCaddyfile(c *caddyfile.Dispenser) error {
	if err := d.Unmarshal(c, &d.Allow); err != nil {
		return err
	}
	if _, err := knockapp.ParsePrefixes(d.Allow); err != nil {
		return knockapp.Placed(d.At, err)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Listener)(nil)
	_ caddy.ListenerWrapper = (*Listener)(nil)
	_ caddyfile.Unmarshaler = (*Listener)(nil)
)
