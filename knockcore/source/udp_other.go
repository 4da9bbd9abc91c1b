// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package source

import (
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// drainWait is how long a socket that ends is looked at for more.
const drainWait = 20 * time.Millisecond

// reader reads packets one by one, into memory of its own.
type reader struct {
	u    *UDP
	buf  []byte
	oob  []byte
	p    Packet
	from netip.AddrPort
	to   netip.Addr
	n    int
}

func newReader(u *UDP) (*reader, error) {
	return &reader{u: u, buf: make([]byte, MaxPayload+1), oob: make([]byte, 128)}, nil
}

// read waits for a packet.
func (r *reader) read() (int, error) {
	n, oobn, _, from, err := r.u.conn.ReadMsgUDPAddrPort(r.buf, r.oob)
	if err != nil && n == 0 {
		return 0, err // where a packet that was cut is an error, it still counts
	}
	r.n, r.from, r.to = n, from, netip.Addr{}
	if r.u.local.Addr().IsUnspecified() {
		r.to = destination(r.u.local.Addr().Is4(), r.oob[:oobn])
	}
	return 1, nil
}

func destination(v4 bool, oob []byte) netip.Addr {
	var dst net.IP
	if v4 {
		var cm ipv4.ControlMessage
		if cm.Parse(oob) == nil {
			dst = cm.Dst
		}
	} else {
		var cm ipv6.ControlMessage
		if cm.Parse(oob) == nil {
			dst = cm.Dst
		}
	}
	addr, _ := netip.AddrFromSlice(dst)
	return addr.Unmap()
}

// drain reads what is there.
func (r *reader) drain(sink Sink) {
	_ = r.u.conn.SetReadDeadline(time.Now().Add(drainWait))
	for range drainLimit {
		n, err := r.read()
		if err != nil {
			return
		}
		r.deliver(n, sink)
	}
}

func (r *reader) deliver(_ int, sink Sink) {
	r.u.packet(&r.p, time.Now(), netip.AddrPortFrom(r.from.Addr().Unmap(), r.from.Port()), r.to, r.buf[:r.n])
	sink(&r.p)
}

func setSocketBuffer(conn *net.UDPConn, size int) { _ = conn.SetReadBuffer(size) }
