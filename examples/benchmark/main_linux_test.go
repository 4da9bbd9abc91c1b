// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

func TestMain(m *testing.M) { program.Main(m) }

// TestRun runs each benchmark for a moment: that they work, not how fast.
func TestRun(t *testing.T) {
	netlab.Need(t)
	for _, name := range []string{"nft", "iptables", "knockd", "knock", "fwknopd", "fwknop", "iperf3", "sysctl"} {
		program.Need(t, name)
	}
	var out strings.Builder
	o := options{rounds: 2, windows: 1000, length: time.Second, bestOf: 1, caddy: program.Caddy(t), client: program.Client(t)}
	for _, b := range benchmarks {
		o.only = append(o.only, b.name)
	}
	if err := run(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"== latency", "caddy-knock, nftables", "knockd, nft command", "fwknopd, iptables", "== forward", "gate, cut, 1000 windows"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing:\n%s", want, out.String())
		}
	}
	if err := run(t.Context(), options{only: []string{"nothing"}}, &out); err == nil {
		t.Error("a benchmark that there is not was run")
	}
}
