// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// connKey is a TCP connection of this host: who is at the other end, and where.
type connKey struct{ remote, local netip.AddrPort }

// keepConnections remembers the connections that are open to services which cut
// and which are gated for the first time: no window will ever stand for them.
func (g *gate) keepConnections(st *state) error {
	var first []*knockcore.Service
	for _, s := range g.services {
		if s.CutOnExpire && st.sets[standard(s.Name)[0].setName()] == nil && !g.wasGated(s.Name) {
			first = append(first, s)
		}
	}
	if len(first) == 0 {
		return nil
	}
	conns, err := tcpConnections(g.k.netns)
	if err != nil {
		return fmt.Errorf("listing open connections: %w", err)
	}
	for _, c := range conns {
		if slices.ContainsFunc(first, func(s *knockcore.Service) bool { return s.Has(knockcore.TCP, c.local.Port()) }) {
			g.kept[c] = true
		}
	}
	return nil
}

// wasGated reports whether this engine gated the service before: its table may
// just be gone.
func (g *gate) wasGated(service string) bool {
	return g.rs != nil && slices.ContainsFunc(g.rs.sets, func(s setSpec) bool { return s.name == standard(service)[0].setName() })
}

func keptSet(v6 bool) setSpec {
	if v6 {
		return setSpec{keptSet6, kindConn6, ""}
	}
	return setSpec{keptSet4, kindConn4, ""}
}

// addKept writes the kept connections into a transaction.
func (g *gate) addKept(c *nftables.Conn, table *nftables.Table) error {
	if !slices.ContainsFunc(g.services, func(s *knockcore.Service) bool { return s.CutOnExpire }) {
		return nil
	}
	elems := map[bool][]nftables.SetElement{}
	for k := range g.kept {
		v6 := k.remote.Addr().Is6()
		elems[v6] = append(elems[v6], nftables.SetElement{Key: k.bytes()})
	}
	for v6, list := range elems {
		if err := c.SetAddElements(keptSet(v6).set(table), list); err != nil {
			return err
		}
	}
	return nil
}

// bytes is the connection as the set has it: every field at a multiple of 4.
func (k connKey) bytes() []byte {
	var b []byte
	for _, end := range []netip.AddrPort{k.remote, k.local} {
		b = append(b, end.Addr().AsSlice()...)
		b = append(binary.BigEndian.AppendUint16(b, end.Port()), 0, 0)
	}
	return b
}

func connFromBytes(b []byte) (k connKey, ok bool) {
	half := len(b) / 2
	if half != 8 && half != 20 {
		return k, false
	}
	for i, end := range []*netip.AddrPort{&k.remote, &k.local} {
		part := b[i*half : (i+1)*half]
		addr, _ := netip.AddrFromSlice(part[:half-4])
		*end = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(part[half-4:]))
	}
	return k, true
}

// readKept takes over the connections that an earlier process kept.
func (g *gate) readKept(spec setSpec) error {
	err := g.k.call(func(c *nftables.Conn) error {
		elems, err := c.GetSetElements(spec.set(g.table()))
		for _, e := range elems {
			if k, ok := connFromBytes(e.Key); ok {
				g.kept[k] = true
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("reading set %s: %w", spec.name, err)
	}
	return nil
}

// Layout of struct inet_diag_req_v2 and struct inet_diag_msg.
const (
	diagRequestLen   = 56
	diagStates       = 4
	diagReplyLen     = 72
	diagSourcePort   = 4
	diagDestPort     = 6
	diagSourceAddr   = 8
	diagDestAddr     = 24
	sockDiagByFamily = 20
)

// openStates are the TCP states in which the peer may still send, as a bit set:
// established (1), SYN received (3), FIN wait 1 and 2 (4, 5), close wait (8),
// last ACK (9), closing (11).
const openStates = 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11

// tcpConnections lists the host's TCP connections.
func tcpConnections(netns int) ([]connKey, error) {
	fd, p, err := dialNetlink(netns, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	l := &link{fd: fd, port: p, in: make([]byte, recvSize)}
	defer l.close()
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: dumpWait})
	var list []connKey
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		req := make([]byte, diagRequestLen)
		req[0], req[1] = family, unix.IPPROTO_TCP
		binary.NativeEndian.PutUint32(req[diagStates:], openStates)
		replies, err := l.roundTrip([]netlink.Message{{
			Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump},
			Data:   req,
		}})
		if err != nil {
			return nil, err
		}
		for _, m := range replies {
			if m.Header.Type == sockDiagByFamily && len(m.Data) >= diagReplyLen {
				list = append(list, connKey{
					remote: diagEnd(m.Data, family, diagDestAddr, diagDestPort),
					local:  diagEnd(m.Data, family, diagSourceAddr, diagSourcePort),
				})
			}
		}
	}
	return list, nil
}

func diagEnd(b []byte, family byte, addr, port int) netip.AddrPort {
	size := 4
	if family == unix.AF_INET6 {
		size = 16
	}
	a, _ := netip.AddrFromSlice(b[addr : addr+size])
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(b[port:]))
}
