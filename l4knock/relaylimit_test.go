// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestOneClientsRelays: if nobody says anything, a client has no more relays than
// leave others the descriptors that they need.
func TestOneClientsRelays(t *testing.T) {
	r := &Relay{metrics: newRelayMetrics(prometheus.NewRegistry())}
	r.perClient = r.mostPerClient()
	most := r.perClient
	enter := func(client string) error {
		leave, err := r.enter(client, "service of TestOneClientsRelays")
		if err == nil {
			t.Cleanup(leave)
		}
		return err
	}
	for range most {
		if err := enter("greedy"); err != nil {
			t.Fatal(err)
		}
	}
	if enter("greedy") == nil {
		t.Errorf("%d relays and one more", most)
	}
	for _, other := range []string{"modest", ""} {
		if err := enter(other); err != nil {
			t.Errorf("client %q: %v", other, err)
		}
	}
}
