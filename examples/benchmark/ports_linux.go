// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// awaitPorts waits until the connections of the part before, which the kernel
// remembers for a minute, leave enough ports to the next one.
func awaitPorts(ctx context.Context) error {
	var first, last int
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil {
		return err
	}
	for {
		waiting, err := timeWaits()
		if err != nil || 4*waiting <= last-first {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// timeWaits is how many TCP connections have ended that the kernel still remembers.
func timeWaits() (n int, err error) {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, err
	}
	_, after, found := strings.Cut(string(text), " tw ")
	if !found {
		return 0, fmt.Errorf("/proc/net/sockstat tells nothing about TIME_WAIT")
	}
	_, err = fmt.Sscan(after, &n)
	return n, err
}
