// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock_test

import (
	"fmt"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// BenchmarkAdmissions admits clients through Caddy, one connection each, with the
// state in memory and on disk:
//
//	go test -run '^$' -bench Admissions -count 5 ./l4knock
func BenchmarkAdmissions(b *testing.B) {
	for _, store := range []string{"memory", "file"} {
		b.Run(store, func(b *testing.B) {
			port := program.FreePort(b)
			apptest.Load(b, fmt.Sprintf(`{
	admin off
	log {
		level ERROR
	}
	knock {
		client alice {
			secret "%s"
			services echo
		}
		service echo tcp/%d
		store %s
	}
	layer4 {
		127.0.0.1:%d {
			route {
				knock echo {
					admit {
						knock_relay %s
					}
				}
			}
		}
	}
}`, secret, port, store, port, apptest.Echo(b, "service\n")))
			b.ReportAllocs()
			for b.Loop() {
				if got := exchange(b, port, frame(b, port, nil)); got != "service\n" {
					b.Fatalf("got %q", got)
				}
			}
		})
	}
}
