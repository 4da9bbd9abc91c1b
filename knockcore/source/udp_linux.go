// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// batchSize is how many packets one system call reads at most.
const batchSize = 64

// oobSize has room for a packet's destination and the counter of lost ones.
const oobSize = 96

// reader reads packets in batches, into memory of its own.
type reader struct {
	u     *UDP
	conn  batchReader
	batch []ipv4.Message
	p     Packet
	lost  uint32 // the kernel's counter, as it was last
}

// batchReader is implemented by the connections of both families.
type batchReader interface {
	ReadBatch(batch []ipv4.Message, flags int) (int, error)
}

func newReader(u *UDP) *reader {
	r := &reader{u: u, batch: make([]ipv4.Message, batchSize)}
	if u.local.Addr().Is4() {
		r.conn = ipv4.NewPacketConn(u.conn)
	} else {
		r.conn = ipv6.NewPacketConn(u.conn)
	}
	for i := range r.batch {
		r.batch[i].Buffers = [][]byte{make([]byte, MaxPayload+1)}
		r.batch[i].OOB = make([]byte, oobSize)
	}
	if c, err := u.conn.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1) })
	}
	return r
}

// read waits for packets.
func (r *reader) read() (int, error) { return r.conn.ReadBatch(r.batch, 0) }

// drain reads what is there without waiting for more.
func (r *reader) drain(sink Sink) {
	_ = r.u.conn.SetReadDeadline(time.Time{})
	for left := drainLimit; left > 0; {
		n, _ := r.conn.ReadBatch(r.batch, unix.MSG_DONTWAIT)
		if n <= 0 {
			return
		}
		r.deliver(n, sink)
		left -= n
	}
}

func (r *reader) deliver(n int, sink Sink) {
	now := time.Now()
	for i := range r.batch[:n] {
		m := &r.batch[i]
		from, ok := m.Addr.(*net.UDPAddr)
		if !ok {
			continue
		}
		to := r.control(m.OOB[:m.NN])
		source := from.AddrPort()
		r.u.packet(&r.p, now, netip.AddrPortFrom(source.Addr().Unmap(), source.Port()), to, m.Buffers[0][:m.N])
		sink(&r.p)
	}
}

// control reads what the kernel tells about a packet.
func (r *reader) control(oob []byte) (to netip.Addr) {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return to
		}
		oob = rest
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= 12:
			to = netip.AddrFrom4([4]byte(data[8:12]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= 16:
			to = netip.AddrFrom16([16]byte(data[:16])).Unmap()
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			lost := binary.NativeEndian.Uint32(data)
			r.u.dropped.Add(uint64(lost - r.lost)) // the counter may wrap around
			r.lost = lost
		}
	}
	return to
}

// setSocketBuffer asks for more than the limit for everybody, where we may.
func setSocketBuffer(conn *net.UDPConn, size int) {
	forced := false
	if c, err := conn.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) {
			forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) == nil
		})
	}
	if !forced {
		_ = conn.SetReadBuffer(size)
	}
}
