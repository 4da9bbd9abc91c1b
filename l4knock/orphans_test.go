// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// TestFailedReloadTakesNoStream: a configuration that could open one of its two
// listeners only, and so never ran, decides on no stream afterwards.
func TestFailedReloadTakesNoStream(t *testing.T) {
	port, echo, cover := program.FreePort(t), apptest.Echo(t, "service\n"), apptest.Site(t, "cover")
	config := func(client, key, second string) string {
		return fmt.Sprintf(`{
	admin off
	log {
		level ERROR
	}
	knock {
		client %s {
			secret "%s"
			services echo
		}
		service echo tcp/%d
	}
	layer4 {
		127.0.0.1:%d {
			route {
				knock echo {
					admit {
						proxy %s
					}
				}
				proxy %s
			}
		}
		%s {
			route {
				proxy %[6]s
			}
		}
	}
}`, client, key, port, port, echo, cover, second)
	}
	const other = "another secret, of somebody who never came in"
	apptest.Load(t, config("alice", secret, fmt.Sprintf("127.0.0.1:%d", program.FreePort(t))))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	bad, err := apptest.Adapt(config("mallory", other, taken.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 { // apps and listeners start in random order
		if err := caddy.Load(bad, true); err == nil {
			t.Fatal("it was loaded")
		}
	}
	for i := range 20 {
		if got := exchange(t, port, frame(t, port, nil)); !strings.Contains(got, "service") {
			t.Fatalf("stream %d: alice got %q", i, got)
		}
		f := &wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: uint16(port), Time: time.Now().UnixMilli()}
		b, err := f.Seal(credential("mallory", other))
		if err != nil {
			t.Fatal(err)
		}
		if got := exchange(t, port, b); strings.Contains(got, "service") {
			t.Fatalf("stream %d: a client of a refused configuration got in", i)
		}
	}
}
