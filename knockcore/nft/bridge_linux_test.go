// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"testing"
	"time"
)

// TestBridgeAlone: if a reload ends between the rules that stand in front and those
// that it wanted, services stay closed, windows open, and the former rules come back.
func TestBridgeAlone(t *testing.T) {
	w := newTown(t)
	w.host.Echo("tcp", ":22")
	e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
	open(t, e, window(knocker4, "ssh", time.Hour))
	rules := func() string { return w.host.Run("nft", "list", "chain", "inet", DefaultTable, portsChain) }
	before := rules()
	if err := e.run(t.Context(), func(o *owner) error {
		g := o.keeper.(*gate)
		var st *state
		genID, err := g.k.steady(func() (err error) { st, err = g.k.readState(g.name); return err })
		if err != nil {
			return err
		}
		if wrote, err := g.bridge(st, genID); err != nil || !wrote {
			t.Errorf("wrote: %v, %v", wrote, err)
		}
		w.want(t, w.knocker, "tcp", host4, "22", "open", "the knocker meanwhile")
		w.want(t, w.stranger, "tcp", "198.51.100.1", "22", "filtered", "a stranger meanwhile")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.Eventually(20*time.Second, "the former rules", func() bool { return e.Check(t.Context()) == nil && rules() == before })
	w.want(t, w.knocker, "tcp", host4, "22", "open", "the knocker afterwards")
	w.want(t, w.stranger, "tcp", "198.51.100.1", "22", "filtered", "a stranger afterwards")
}
