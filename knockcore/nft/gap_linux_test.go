// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// TestSetupLeavesNoGap sets up again and again, as reloads do, while a stranger floods
// a closed port: not one packet gets past the gate.
func TestSetupLeavesNoGap(t *testing.T) {
	w := newTown(t)
	services := []*knockcore.Service{service(t, "a", "udp/1000"), service(t, "b", "tcp/2222"), service(t, "c", "tcp/5555")}
	e := start(t, w.host, Config{}, services...)
	w.host.RunInput(`table inet behind {
		chain c {
			type filter hook input priority 0
			udp dport 1000 counter
		}
	}`, "nft", "-f", "-")
	ctx, cancel := context.WithCancel(t.Context())
	var sent atomic.Int64
	var flood sync.WaitGroup
	for range 2 {
		conn, err := w.stranger.Dial("udp", "198.51.100.1:1000", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		flood.Go(func() {
			defer conn.Close()
			for ctx.Err() == nil {
				for range 100 {
					_, _ = conn.(*net.UDPConn).Write([]byte("x"))
				}
				sent.Add(100)
			}
		})
	}
	const setups = 1000
	for i := range setups {
		// Half of them change nothing, the others the rules of a neighbour.
		services[1] = service(t, "b", fmt.Sprintf("tcp/%d", 2222+i/2%2))
		if err := e.Setup(t.Context(), services); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	flood.Wait()
	t.Logf("%d datagrams over %d setups", sent.Load(), setups)
	if out := w.host.Run("nft", "list", "table", "inet", "behind"); !strings.Contains(out, "counter packets 0") {
		t.Errorf("some got past: %s", out)
	}
}
