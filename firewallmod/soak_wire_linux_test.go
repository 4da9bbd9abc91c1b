// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// tap keeps the IPv4 packets that came in by a device of the host until they are
// read: nothing that Caddy has seen is missing.
type tap struct{ fd int }

func newTap(s *soak, device string) *tap {
	s.Helper()
	t := new(tap)
	var err error
	s.host.Do(func() {
		if t.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return
		}
		var link *net.Interface
		if link, err = net.InterfaceByName(device); err != nil {
			return
		}
		_ = unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
		err = unix.Bind(t.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: link.Index})
	})
	if err != nil {
		s.Fatalf("listening to %s: %v", device, err)
	}
	s.Cleanup(func() { _ = unix.Close(t.fd) })
	return t
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

// sent is what a client sent, by itself: a datagram or the beginning of a stream.
type sent struct {
	client *soakClient
	at     time.Time
	from   netip.AddrPort
	port   string
	data   []byte
}

// read returns what came since the last time.
func (t *tap) read(c *soakClient) (datagrams, streams []sent, err error) {
	type flow struct {
		from netip.AddrPort
		port uint16
	}
	type stream struct {
		next uint32
		at   int // in streams
	}
	open := make(map[flow]*stream)
	packet := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(t.fd, packet, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return datagrams, streams, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, nil, err
		}
		source, protocol, segment, ok := parseIPv4(packet[:n])
		if !ok {
			continue
		}
		f := flow{netip.AddrPortFrom(source, binary.BigEndian.Uint16(segment)), binary.BigEndian.Uint16(segment[2:])}
		s := sent{client: c, at: time.Now(), from: f.from, port: portNames[f.port]}
		switch {
		case s.port == "":
		case protocol == unix.IPPROTO_UDP && len(segment) > 8:
			s.data = bytes.Clone(segment[8:])
			datagrams = append(datagrams, s)
		case protocol == unix.IPPROTO_TCP && len(segment) >= 20:
			payload := segment[min(len(segment), int(segment[12]>>4)*4):]
			seq := binary.BigEndian.Uint32(segment[4:])
			if len(payload) == 0 {
				continue
			}
			known := open[f]
			if known == nil {
				known = &stream{seq, len(streams)}
				open[f] = known
				streams = append(streams, s)
			}
			if seq == known.next { // else it was sent again
				streams[known.at].data = append(streams[known.at].data, payload...)
				known.next += uint32(len(payload))
			}
		}
	}
}

var portNames = map[uint16]string{62201: "62201", 5555: bothPort, 4444: framePort}

func parseIPv4(b []byte) (source netip.Addr, protocol byte, segment []byte, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return source, 0, nil, false
	}
	header, length := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < 20 || length > len(b) || length < header+8 {
		return source, 0, nil, false
	}
	return netip.AddrFrom4([4]byte(b[12:16])), b[9], b[header:length], true
}
