// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package source

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	errAddrInUse = unix.EADDRINUSE
	errNoFamily  = unix.EAFNOSUPPORT
)

// listenBeside opens a socket beside others. SO_REUSEPORT, which lets any process
// of the same user share a port, is set only meanwhile.
func listenBeside(others []*UDP, listen func(func(string, string, syscall.RawConn) error) (*net.UDPConn, error)) (*net.UDPConn, error) {
	for _, o := range others {
		if err := share(o.conn, 1); err != nil {
			return nil, err
		}
		defer func() { _ = share(o.conn, 0) }()
	}
	conn, err := listen(func(_, _ string, c syscall.RawConn) error { return shareRaw(c, 1) })
	if err == nil {
		_ = share(conn, 0)
	}
	return conn, err
}

// leave makes the kernel look for another socket for what comes from now on: a
// socket that is connected gets the packets of its peer only, and this one's peer
// is the socket itself. Nothing is sent. What has been queued stays.
func leave(u *UDP) {
	addr, port := u.local.Addr(), int(u.local.Port())
	var peer unix.Sockaddr
	switch {
	case addr == netip.IPv4Unspecified():
		peer = &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	case addr == netip.IPv6Unspecified():
		peer = &unix.SockaddrInet6{Port: port, Addr: netip.IPv6Loopback().As16()}
	case addr.Is4():
		peer = &unix.SockaddrInet4{Port: port, Addr: addr.As4()}
	case addr.Zone() != "":
		return
	default:
		peer = &unix.SockaddrInet6{Port: port, Addr: addr.As16()}
	}
	if c, err := u.conn.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = unix.Connect(int(fd), peer) })
	}
}

func share(conn *net.UDPConn, on int) error {
	c, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return shareRaw(c, on)
}

func shareRaw(c syscall.RawConn, on int) (err error) {
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, on) }); e != nil {
		return e
	}
	return err
}
