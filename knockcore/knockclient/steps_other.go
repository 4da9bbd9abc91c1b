// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package knockclient

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// touchTimeout ends a connection attempt before the system repeats its SYN.
const touchTimeout = 100 * time.Millisecond

// touch begins a TCP connection and drops it before its SYN is repeated.
func touch(ctx context.Context, source netip.Addr, to netip.AddrPort) error {
	d := net.Dialer{Timeout: touchTimeout}
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err == nil {
		return conn.Close()
	}
	// Nobody answered, or it was refused: the packet left either way, unless there is
	// no way to the address.
	if op := new(net.OpError); errors.As(err, &op) && (op.Timeout() || isRefused(err)) {
		return nil
	}
	return err
}

func sendSYN(netip.Addr, netip.AddrPort) error {
	return errors.New("SYNs by raw packet are possible on Linux only; plain connections work everywhere")
}
