// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// Three nodes that share nothing but Caddy's storage.
func TestThreeNodesOneStorage(t *testing.T) {
	f := newThree(t)
	f.storage = filepath.Join(f.dir, "shared")
	f.store = func(n *node) string { return "store storage {\nreplay file\npoll 200ms\nnode " + n.name + "\n}" }
	for _, n := range f.nodes {
		f.startNode(n)
	}
	a, b, c := f.nodes[0], f.nodes[1], f.nodes[2]

	var took []time.Duration
	for range 3 {
		start := time.Now()
		f.send(a, f.datagram(22))
		program.Await(t, "b to let in", func() bool { return f.in(b, 20*time.Millisecond) })
		took = append(took, time.Since(start))
		f.everywhere(true)
		f.revoke(c)
	}
	slices.Sort(took)
	t.Logf("knock at a, connect through b: %v with a look every 200 ms", took)

	// A stream that A admitted is cut by revoking at C.
	stream, got := f.frame(a, f.envelope())
	if got != letIn {
		t.Fatalf("the frame gets %q", got)
	}
	f.caddyOf(c, "revoke", "--client", "alice")
	if _, err := io.Copy(io.Discard, stream); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("the stream at a lives on after revoking at c")
	}
	stream.Close()

	// A node is killed and comes again: it learns what it missed.
	b.caddy.Kill()
	f.send(a, f.datagram(22))
	program.Await(t, "c to let in", func() bool { return f.in(c, 100*time.Millisecond) })
	if f.in(b, 100*time.Millisecond) {
		t.Error("b is open, although it is dead")
	}
	f.startNode(b)
	f.everywhere(true)

	// The storage is not mounted, or broken: nothing is revoked, the health says so, and
	// a node goes on by itself.
	well := func(want bool) {
		t.Helper()
		for _, n := range f.nodes {
			program.Await(t, "the health of "+n.name, func() bool { return strings.Contains(f.caddyOf(n, "status"), "NOT WELL") != want })
		}
	}
	kept := filepath.Join(f.storage, "knock")
	for _, broken := range []bool{false, true} {
		f.everywhere(true)
		if err := os.Rename(kept, kept+".away"); err != nil {
			t.Fatal(err)
		}
		if broken {
			write(t, kept, "not a folder")
		}
		well(false)
		for _, n := range f.nodes {
			if !f.in(n, patience) {
				t.Errorf("%s ended a live grant with the storage", n.name)
			}
		}
		if out, err := a.ns.Try(program.Caddy(t), "knock", "revoke", "--client", "alice", "--service", "shell"); err == nil || !strings.Contains(out, "telling the other nodes") {
			t.Errorf("an order that nobody else can hear: %v, %s", err, out)
		}
		if broken {
			if err := os.Remove(kept); err != nil {
				t.Fatal(err)
			}
		} else if _, err := os.Stat(kept); err == nil {
			t.Error("written beside the storage")
		}
		if err := os.Rename(kept+".away", kept); err != nil {
			t.Fatal(err)
		}
		well(true)
		f.everywhere(true)
	}
	f.revoke(c)

	// What one made meanwhile is told when the storage is back.
	if err := os.Rename(kept, kept+".away"); err != nil {
		t.Fatal(err)
	}
	well(false)
	f.send(b, f.datagram(22))
	program.Await(t, "b to let in", func() bool { return f.in(b, 100*time.Millisecond) })
	if f.in(a, 100*time.Millisecond) {
		t.Error("a is open for what it can't have heard of")
	}
	if err := os.Rename(kept+".away", kept); err != nil {
		t.Fatal(err)
	}
	f.everywhere(true)
	well(true)
	f.revoke(a)

	for _, want := range []string{"\na ", "\nb ", "\nc (this one)", "looked at every 0.2s"} {
		program.Await(t, "status to show "+want, func() bool { return strings.Contains(f.caddyOf(c, "status"), want) })
	}
	for _, want := range []string{"caddy_knock_store_up 1", `caddy_knock_store_errors_total{operation="sync"}`, "caddy_knock_fleet_nodes 3"} {
		program.Await(t, "the metrics to tell "+want, func() bool { return strings.Contains(c.ns.Run("curl", "-s", "http://localhost:2019/metrics"), want) })
	}
}
