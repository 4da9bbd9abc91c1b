// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package knockclient

import (
	"fmt"
	"net/netip"
	"runtime"
)

// rawConn sends whole IP packets, on Linux.
type rawConn struct{}

func dialRaw(netip.Addr) (*rawConn, error) {
	return nil, fmt.Errorf("crafted SYNs can be sent from Linux only, this is %s: use another method", runtime.GOOS)
}

func (*rawConn) send([]byte) error { return nil }

func (*rawConn) close() {}
