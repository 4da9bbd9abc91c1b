// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// endpoint is one of the two connections.
type endpoint struct {
	conn net.Conn
	// base is conn without its wrappers: where socket options go.
	base net.Conn
	// raw gives conn's descriptor if conn is a bare stream socket and this system
	// lets us wait on it; otherwise it is nil.
	raw syscall.RawConn
	// ended is set before our end is sent to the peer.
	ended atomic.Bool
}

func (e *endpoint) init(conn net.Conn) {
	e.conn, e.base = conn, conn
	for range 8 { // no wrapper is that deep; no loop is endless
		w, ok := e.base.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		e.base = w.NetConn()
	}
	if bareStream(conn) && canWait {
		if raw, err := conn.(syscall.Conn).SyscallConn(); err == nil {
			e.raw = raw
		}
	}
}

// bareStream tells whether conn is a TCP or unix stream socket and nothing else.
func bareStream(conn net.Conn) bool {
	switch c := conn.(type) {
	case *net.TCPConn:
		return c != nil
	case *net.UnixConn:
		return c != nil && c.LocalAddr().Network() == "unix"
	}
	return false
}

// ZeroCopy tells whether a relay between these two moves bytes without taking them
// to user space. It can't if one end is wrapped (by TLS, say), nor outside Linux.
func ZeroCopy(down, up net.Conn) bool {
	return canSplice && bareStream(down) && bareStream(up)
}

func (e *endpoint) clearDeadline() { _ = e.conn.SetDeadline(time.Time{}) }

// wake ends all waiting on e and leaves it open.
func (e *endpoint) wake() {
	if e.conn.SetDeadline(longAgo) != nil {
		_ = e.conn.Close()
	}
}

// reset closes e so that its peer sees a reset, if it is TCP. A wrapper gets no
// chance to say goodbye, which could take time.
func (e *endpoint) reset() {
	if tcp, ok := e.base.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = e.base.Close()
}

// closeWrite passes on an end. It returns false if e can't do that.
func (e *endpoint) closeWrite() bool {
	w, ok := e.conn.(interface{ CloseWrite() error })
	if ok {
		e.ended.Store(true)
		_ = w.CloseWrite() // it fails if the peer is gone; the other direction sees that
	}
	return ok
}

// opError dresses the error of a system call as package net does.
func (e *endpoint) opError(call string, err error) error {
	return &net.OpError{
		Op: "relay", Net: e.conn.RemoteAddr().Network(), Source: e.conn.LocalAddr(), Addr: e.conn.RemoteAddr(),
		Err: os.NewSyscallError(call, err),
	}
}

// gone tells whether a write failed because the peer takes no more.
func gone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// tune sets the socket options that opts asks for, as far as e has them.
func (e *endpoint) tune(opts *Options) {
	tcp, ok := e.base.(*net.TCPConn)
	if !ok {
		return
	}
	if opts.KeepAlive != 0 {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: opts.KeepAlive > 0, Idle: opts.KeepAlive, Interval: min(opts.KeepAlive, 15*time.Second),
		})
	}
	if opts.UserTimeout > 0 {
		setUserTimeout(tcp, opts.UserTimeout)
	}
}
