// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// rawConn sends whole IP packets to one address.
type rawConn struct {
	fd int
	to unix.Sockaddr
}

func dialRaw(to netip.Addr) (*rawConn, error) {
	c := &rawConn{}
	family := unix.AF_INET6
	if to.Is4() {
		family, c.to = unix.AF_INET, &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		addr := &unix.SockaddrInet6{Addr: to.As16()} // no port: the kernel would take it for a protocol
		if zone := to.Zone(); zone != "" {
			i, err := net.InterfaceByName(zone)
			if err != nil {
				return nil, err
			}
			addr.ZoneId = uint32(i.Index)
		}
		c.to = addr
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		program, _ := os.Executable()
		return nil, fmt.Errorf("crafted SYNs need CAP_NET_RAW: %w; run this as root, or once `sudo setcap %s=+ep %s`", err, "cap_net_raw", program)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c.fd = fd
	return c, nil
}

func (c *rawConn) send(packet []byte) error {
	return os.NewSyscallError("sendto", unix.Sendto(c.fd, packet, 0, c.to))
}

func (c *rawConn) close() { _ = unix.Close(c.fd) }
