// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/doctor"
)

// TestPrintReport: an open port that Caddy guards does not read like a hole.
func TestPrintReport(t *testing.T) {
	var b strings.Builder
	err := printReport(&b, &doctor.Report{OK: true, Proofs: []doctor.Proof{
		{Service: "ssh", Port: "tcp/2222", Family: "ipv4", Verdict: doctor.Open, Detail: "it takes connections", Guarded: true},
		{Service: "web", Port: "tcp/443", Family: "ipv4", Verdict: doctor.Open, Detail: "it takes connections"},
		{Service: "db", Port: "tcp/5432", Family: "ipv6", Verdict: doctor.Closed, Detail: "refused"},
		{Service: "vpn", Port: "udp/51820", Family: "ipv4", Verdict: doctor.Silent, Detail: "nothing came back"},
	}})
	const want = `
open, as meant ssh tcp/2222 over ipv4 (it takes connections; Caddy asks for a frame or a grant there, and strangers meet the cover)
proved open    web tcp/443 over ipv4 (it takes connections)
proved closed  db tcp/5432 over ipv6 (refused)
silent         vpn udp/51820 over ipv4 (nothing came back)

No problem was found.
`
	if err != nil || b.String() != want {
		t.Errorf("%v: %s", err, b.String())
	}
}
