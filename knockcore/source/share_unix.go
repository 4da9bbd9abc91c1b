// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package source

import (
	"net"
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
