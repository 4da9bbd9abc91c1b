// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// touch begins a TCP connection and drops it at once, so that one SYN leaves and
// is never repeated.
func touch(_ context.Context, source netip.Addr, to netip.AddrPort) error {
	return withSocket(to, unix.SOCK_STREAM, 0, func(fd int, sa unix.Sockaddr) error {
		if source.IsValid() {
			if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0))); err != nil {
				return fmt.Errorf("binding to %v: %w", source, err)
			}
		}
		err := unix.Connect(fd, sa)
		if errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.ECONNREFUSED) {
			return nil
		}
		return err
	})
}

// sendSYN sends a SYN that no connection belongs to. It needs CAP_NET_RAW.
func sendSYN(source netip.Addr, to netip.AddrPort) error {
	return withSocket(to, unix.SOCK_RAW, unix.IPPROTO_TCP, func(fd int, sa unix.Sockaddr) error {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0))); err != nil {
			return fmt.Errorf("binding to %v: %w", source, err)
		}
		switch a := sa.(type) { // raw sockets have no ports
		case *unix.SockaddrInet4:
			a.Port = 0
		case *unix.SockaddrInet6:
			a.Port = 0
		}
		return unix.Sendto(fd, synSegment(source, to), 0, sa)
	})
}

// synSegment is a SYN with random port and sequence number.
func synSegment(source netip.Addr, to netip.AddrPort) []byte {
	b := make([]byte, 24)
	_, _ = rand.Read(b[:8])                                                       // never fails: see crypto/rand
	binary.BigEndian.PutUint16(b, 32768+binary.BigEndian.Uint16(b)%(60999-32768)) // as an ephemeral port
	binary.BigEndian.PutUint16(b[2:], to.Port())
	b[4] |= 1 // 0 would look like no number
	clear(b[8:])
	b[12], b[13] = 6<<4, 0x02
	binary.BigEndian.PutUint16(b[14:], 64240)
	b[20], b[21] = 2, 4 // MSS
	binary.BigEndian.PutUint16(b[22:], 1460)
	var pseudo []byte
	pseudo = append(append(pseudo, source.AsSlice()...), to.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, byte(len(b)))
	binary.BigEndian.PutUint16(b[16:], ^onesSum(append(pseudo, b...)))
	return b
}

func onesSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func withSocket(to netip.AddrPort, kind, proto int, use func(fd int, sa unix.Sockaddr) error) error {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("raw packets need CAP_NET_RAW; plain connections need nothing: %w", err)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return use(fd, sockaddr(to))
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		if ifc, err := net.InterfaceByName(zone); err == nil {
			sa.ZoneId = uint32(ifc.Index)
		} else if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
			sa.ZoneId = uint32(n)
		}
	}
	return sa
}
