// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// volley is one knock at several addresses.
type volley struct {
	knock   Knock
	session []byte
	targets []*aimed
}

// aimed is an address with a socket of its own, which is not connected: an
// unreachable message of ICMP must not end a sequence.
type aimed struct {
	Delivery
	conn  *net.UDPConn
	raw   *rawConn // instead of conn, for crafted SYNs
	local netip.Addr
}

// aim makes the socket for an address. What fails makes it a skipped one.
func (v *volley) aim(ctx context.Context, source netip.Addr, to netip.AddrPort) {
	t := &aimed{Delivery: Delivery{To: to}, local: source.Unmap()}
	v.targets = append(v.targets, t)
	network, bind := "udp6", "[::]:0"
	if to.Addr().Is4() {
		network, bind = "udp4", "0.0.0.0:0"
	}
	if t.local.IsValid() {
		if t.local.Is4() != to.Addr().Is4() {
			t.Err = fmt.Errorf("source %v is of the other family", source)
			return
		}
		bind = netip.AddrPortFrom(t.local, 0).String()
	} else if t.local, t.Err = routeFrom(ctx, network, to); t.Err != nil {
		return
	}
	if v.knock.isSYN() {
		t.raw, t.Err = dialRaw(to.Addr())
		return
	}
	conn, err := new(net.ListenConfig).ListenPacket(ctx, network, bind)
	if err != nil {
		t.Err = err
		return
	}
	t.conn = conn.(*net.UDPConn)
}

// routeFrom finds the local address of the route, without sending anything.
func routeFrom(ctx context.Context, network string, to netip.AddrPort) (netip.Addr, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, to.String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

func (v *volley) close() {
	for _, t := range v.targets {
		if t.conn != nil {
			_ = t.conn.Close()
		}
		if t.raw != nil {
			t.raw.close()
		}
	}
}

// fire sends everything, part by part, each part to all addresses.
func (v *volley) fire(ctx context.Context) error {
	type sequence struct { // each port and address has its own
		target *aimed
		port   uint16
	}
	parts := v.knock.parts()
	var ids map[sequence][16]byte
	var slot int64
	for i := range parts * max(v.knock.Copies, 1) {
		if i > 0 {
			if err := pause(ctx, v.knock.interval()); err != nil {
				return err
			}
		}
		if i%parts == 0 {
			ids = make(map[sequence][16]byte) // a copy is another sequence
			slot = v.knock.slot()
		}
		for _, t := range v.targets {
			for _, port := range v.knock.portsOfFrames() {
				id, ok := ids[sequence{t, port}]
				if !ok {
					_, _ = rand.Read(id[:]) // never fails: see crypto/rand
					ids[sequence{t, port}] = id
				}
				t.send(&v.knock, &shot{port: port, index: i % parts, sequenceID: id, session: v.session, local: t.local, slot: slot})
			}
		}
	}
	return nil
}

// send sends one datagram, unless the address was given up.
func (t *aimed) send(k *Knock, s *shot) {
	if t.Err != nil {
		return
	}
	var b []byte
	var err error
	if t.raw != nil {
		if b, err = k.synPacket(s, t.To.Addr()); err == nil {
			err = t.raw.send(b)
		}
	} else if b, err = k.seal(s); err == nil {
		_, err = t.conn.WriteToUDPAddrPort(b, t.To)
	}
	if err != nil {
		t.Err = err
		return
	}
	t.Datagrams++
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
