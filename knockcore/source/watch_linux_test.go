// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// watchAnswers notes what leaves a namespace other than TCP and what neighbours
// need to find each other: the function tells it.
func watchAnswers(t *testing.T, ns *netlab.NS) func() []string {
	t.Helper()
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00 // in network order
	var fd int
	var err error
	ns.Do(func() {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	return func() (sent []string) {
		buf := make([]byte, 2048)
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return sent
			}
			link, ok := from.(*unix.SockaddrLinklayer)
			if !ok || link.Pkttype != unix.PACKET_OUTGOING {
				continue
			}
			if what := answer(buf[:n]); what != "" {
				sent = append(sent, what)
			}
		}
	}
}

// answer describes an IP packet that could be an answer to a datagram.
func answer(b []byte) string {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		if b[9] != unix.IPPROTO_TCP {
			return fmt.Sprintf("IPv4 protocol %d", b[9])
		}
	case len(b) > 40 && b[0]>>4 == 6:
		next, rest := b[6], b[40:]
		if next == 0 && len(rest) > 8 { // hop-by-hop options, of multicast listeners
			next, rest = rest[0], rest[8:]
		}
		if next == unix.IPPROTO_ICMPV6 && rest[0] >= 130 && rest[0] <= 143 {
			return "" // neighbours and multicast listeners
		}
		if next != unix.IPPROTO_TCP {
			return fmt.Sprintf("IPv6 protocol %d, %x", next, rest[0])
		}
	}
	return ""
}
