// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package source

import (
	"fmt"
	"net/netip"
	"runtime"
)

// PacketsConfig describes packet sockets of Linux.
type PacketsConfig struct {
	Interfaces []string
	Targets    []netip.Prefix
}

// ListenPackets fails: only Linux has such sockets.
func ListenPackets(PacketsConfig) (Passive, error) {
	return nil, fmt.Errorf("source packet needs Linux, this is %s: use source udp", runtime.GOOS)
}

// ListenNFLog fails: only Linux has NFLOG.
func ListenNFLog(NFLogConfig) (Passive, error) {
	return nil, fmt.Errorf("source nflog needs Linux, this is %s: use source udp", runtime.GOOS)
}
