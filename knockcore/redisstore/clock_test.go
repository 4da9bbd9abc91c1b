// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// A nonce lives as long as any node could accept its frame, whose clock is off by
// as much as it may.
func TestNonceLives(t *testing.T) {
	server, nodes := newFleet(t, "a")
	for _, off := range []time.Duration{-nodes[0].store.opts.Window, 0, nodes[0].store.opts.Window} {
		k := held(nodes[0], "192.0.2.1") // still in time when it is late
		k.Window, k.Time = nodes[0].store.opts.Window, k.Time.Add(off/2)
		nodes[0].admit(k, knockcore.ReasonNone)
		name, _ := nonceEntry(knockcore.Nonce{Key: k.Replay})
		var left int64
		if _, err := fmt.Sscan(server.Do("PTTL", nodes[0].store.key("n", name)), &left); err != nil {
			t.Fatal(err)
		}
		ends := time.Now().Add(time.Duration(left) * time.Millisecond)
		if need := k.Time.Add(2 * nodes[0].store.opts.Window); ends.Before(need) {
			t.Errorf("a frame %v off is forgotten %v too early", off, need.Sub(ends))
		}
	}
}

// Keys may have vanished where a clock was set. Here it is what the node believes
// of the server's clock that is changed.
func TestServerClockSet(t *testing.T) {
	_, nodes := newFleet(t, "a")
	n := nodes[0]
	before := held(n, "192.0.2.1")
	n.admit(before, knockcore.ReasonNone)
	epoch := n.store.link.Load().epoch

	// The script sees it, and changes nothing until somebody has looked.
	n.store.keeperMu.Lock() // nobody looks meanwhile
	n.store.setClock(time.Now().Add(-time.Hour).UnixMilli(), time.Now())
	if _, err := n.store.change(t.Context(), n.store.link.Load(), "n", "x", "n", "1000", "x", "0 x"); err == nil || !strings.Contains(err.Error(), "not the one") {
		t.Errorf("a clock that is an hour off: %v", err)
	}
	n.store.keeperMu.Unlock()
	n.knock("192.0.2.2", knockcore.ReasonNone)

	// When the clocks differed and agree again, a new epoch begins.
	n.store.clockSet.Store(true)
	program.Await(t, "a new epoch", func() bool { l := n.store.link.Load(); return l != nil && l.epoch != epoch })
	n.awaitOpen()
	n.knock("192.0.2.3", knockcore.ReasonNone)
	refusedAgain(fresh(t, n.store.opts.Addresses[0], nodes), before)
}
