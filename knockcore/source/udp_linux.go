// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// batchSize is how many packets one system call reads at most.
const batchSize = 64

// oobSize has room for a packet's destination and the counter of lost ones.
const oobSize = 96

// reader reads packets in batches, into memory of its own.
type reader struct {
	u     *UDP
	batch *mmsg
	p     Packet
	lost  uint32 // the kernel's counter, as it was last
}

func newReader(u *UDP) (*reader, error) {
	conn, err := u.conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	_ = conn.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1) })
	return &reader{u: u, batch: newMmsg(conn, batchSize, MaxPayload+1, oobSize)}, nil
}

// read waits for packets.
func (r *reader) read() (int, error) { return r.batch.read(true) }

// drain reads what is there without waiting for more.
func (r *reader) drain(sink Sink) {
	_ = r.u.conn.SetReadDeadline(time.Time{})
	for left := drainLimit; left > 0; {
		n, _ := r.batch.read(false)
		if n <= 0 {
			return
		}
		r.deliver(n, sink)
		left -= n
	}
}

func (r *reader) deliver(n int, sink Sink) {
	now := time.Now()
	for i := range n {
		if from := r.batch.from(i); from.IsValid() {
			data, _ := r.batch.msg(i)
			r.u.packet(&r.p, now, from, r.control(r.batch.oob(i)), data)
			sink(&r.p)
		}
	}
	r.batch.reset(n)
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
