// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"net"
	"runtime"
	"testing"
)

// TestFreePort: a port is one test's until its end, and none that somebody has.
func TestFreePort(t *testing.T) {
	port := FreePort(t)
	if runtime.GOOS == "linux" {
		if claimPort(t, port) {
			t.Error("two tests have the same port")
		}
		t.Run("short", func(t *testing.T) { port = FreePort(t) })
		if !claimPort(t, port) {
			t.Error("a test has a port after its end")
		}
	}
	for _, address := range []string{"127.0.0.1:%d", ":%d"} {
		port := FreePort(t) + 1
		ln, err := net.Listen("tcp", fmt.Sprintf(address, port))
		if err != nil {
			continue // somebody else's
		}
		if claimPort(t, port) {
			t.Errorf("the port is taken at "+address, port)
		}
		_ = ln.Close()
	}
}
