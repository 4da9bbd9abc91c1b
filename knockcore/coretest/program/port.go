// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
)

// The range of FreePort is below that of ports that systems choose by themselves, so
// that nobody's connection takes one.
const freePortLow, freePortHigh = 10_000, 32_000

// FreePort finds a port that nobody listens on, neither for TCP nor for UDP. It is the
// test's until its end: no other test, of this process or another, gets it meanwhile.
// That counts because Caddy listens with SO_REUSEPORT: two of them at one port are no
// error, but each gets half of the connections.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		if port := freePortLow + rand.IntN(freePortHigh-freePortLow); claimPort(t, port) {
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// claimPort makes the port the test's if nobody listens on it.
func claimPort(t testing.TB, port int) bool {
	var claim net.Listener
	if runtime.GOOS == "linux" { // which has a namespace of names for this
		var err error
		if claim, err = net.Listen("unix", fmt.Sprintf("@caddy-knock-test-port-%d", port)); err != nil {
			return false
		}
	}
	address := fmt.Sprintf(":%d", port)
	stream, err := net.Listen("tcp", address)
	if err == nil {
		_ = stream.Close()
		var packets net.PacketConn
		if packets, err = net.ListenPacket("udp", address); err == nil {
			_ = packets.Close()
		}
	}
	switch {
	case claim == nil:
	case err != nil:
		_ = claim.Close()
	default:
		t.Cleanup(func() { _ = claim.Close() })
	}
	return err == nil
}

// FreeAddress is FreePort with 127.0.0.1.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", FreePort(t))
}
