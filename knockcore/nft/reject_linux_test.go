// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// listener sees the packets that come to a namespace.
type listener struct {
	fd int
	t  testing.TB
}

func listen(t testing.TB, ns *netlab.NS) *listener {
	t.Helper()
	l := &listener{t: t}
	var err error
	ns.Do(func() {
		l.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(l.fd) })
	if err := unix.SetsockoptTimeval(l.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}); err != nil {
		t.Fatal(err)
	}
	return l
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

// refusal waits for what refuses a packet to the port: a reset from there, or an ICMP
// error about it. What differs from one probe to the next is left out, and so is what
// comes late of a probe by another protocol, which was repeated.
func (l *listener) refusal(network string, to netip.AddrPort) []byte {
	l.t.Helper()
	b := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(l.fd, b, 0)
		if err != nil {
			l.t.Fatalf("waiting for a refusal from %s %v: %v", network, to, err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
			answer, about := plainRefusal(bytes.Clone(b[:n]))
			v6 := n > 0 && b[0]>>4 == 6
			tcp := v6 && n > 6 && b[6] == unix.IPPROTO_TCP || !v6 && n > 9 && b[9] == unix.IPPROTO_TCP
			if about == to.Port() && v6 == to.Addr().Is6() && tcp == (network == "tcp") {
				return answer
			}
		}
	}
}

// plainRefusal clears addresses of ports, numbers and checksums in a packet, and
// returns which port it refuses, 0 if it refuses none.
func plainRefusal(b []byte) (_ []byte, port uint16) {
	zero := func(from, to int) { clear(b[min(from, len(b)):min(to, len(b))]) }
	header := func(at int) (proto byte, payload int) {
		switch {
		case len(b) >= at+20 && b[at]>>4 == 4:
			zero(at+4, at+6)   // identification
			zero(at+10, at+12) // checksum
			return b[at+9], at + 20
		case len(b) >= at+40 && b[at]>>4 == 6:
			b[at+1] &= 0xf0 // flow label
			zero(at+2, at+4)
			return b[at+6], at + 40
		}
		return 0, len(b)
	}
	proto, at := header(0)
	switch proto {
	case unix.IPPROTO_TCP:
		if len(b) >= at+20 && b[at+13]&0x04 != 0 { // RST
			port = binary.BigEndian.Uint16(b[at:])
			zero(at, at+12)    // ports, numbers
			zero(at+16, at+18) // checksum
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		zero(at+2, at+4)
		inner, quoted := header(at + 8)
		if inner == unix.IPPROTO_UDP && len(b) >= quoted+8 {
			port = binary.BigEndian.Uint16(b[quoted+2:])
			zero(quoted, quoted+4)
			zero(quoted+6, quoted+8)
		}
	}
	return b, port
}

// TestRejectedLooksClosed: what a service that rejects answers is, byte for byte, what
// the host answers where nothing listens.
func TestRejectedLooksClosed(t *testing.T) {
	w := newTown(t)
	w.host.Sysctl("net.ipv4.icmp_ratelimit", "0")
	w.host.Sysctl("net.ipv6.icmp.ratelimit", "0")
	start(t, w.host, Config{Reject: []string{"ssh"}}, service(t, "ssh", "tcp/22", "udp/22"))
	l := listen(t, w.knocker)
	for _, network := range []string{"tcp", "udp"} {
		for _, ip := range []string{host4, host6} {
			probe := func(port string) []byte {
				t.Helper()
				if got := w.knocker.ProbeFor(network, net.JoinHostPort(ip, port), netlab.Closed); got != netlab.Closed {
					t.Errorf("%s port %s of %s is %s", network, port, ip, got)
				}
				return l.refusal(network, netip.MustParseAddrPort(net.JoinHostPort(ip, port)))
			}
			rejected, closed := probe("22"), probe("24")
			if !bytes.Equal(rejected, closed) {
				t.Errorf("%s to %s:\nrejected % x\nclosed   % x", network, ip, rejected, closed)
			}
		}
	}
}
