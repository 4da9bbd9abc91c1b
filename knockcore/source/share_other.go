// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package source

import (
	"errors"
	"net"
	"syscall"
)

var (
	errAddrInUse = errors.New("not told apart here")
	errNoFamily  = error(syscall.Errno(10047)) // of Windows
)

func leave(*UDP) {}

func listenBeside([]*UDP, func(func(string, string, syscall.RawConn) error) (*net.UDPConn, error)) (*net.UDPConn, error) {
	return nil, errAddrInUse
}
