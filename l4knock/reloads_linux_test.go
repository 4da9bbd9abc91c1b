// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// TestReloadsCutNoRelay reloads 100 times under 200 relayed connections, every
// tenth time in vain: none is cut, and nothing is left behind.
func TestReloadsCutNoRelay(t *testing.T) {
	const clients, reloads = 200, 100
	port, echo := program.FreePort(t), apptest.Echo(t, "service\n")
	config := func(i int) string {
		return fmt.Sprintf(`{
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
		time_window %ds
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
}`, secret, port, 30+i%2, port, echo)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0") // where a configuration can't listen
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	apptest.Load(t, config(0))
	conns := make([]*net.TCPConn, clients)
	for i := range conns {
		conns[i] = enter(t, port, "alice")
		defer conns[i].Close()
	}
	say := func(i int, text string) {
		t.Helper()
		_ = conns[i].SetDeadline(time.Now().Add(20 * time.Second)) // the reloads may take longer than that of dial
		got := make([]byte, len(text))
		if _, err := io.WriteString(conns[i], text); err != nil {
			t.Fatalf("connection %d was cut: %v", i, err)
		}
		if _, err := io.ReadFull(conns[i], got); err != nil || string(got) != text {
			t.Fatalf("connection %d got %q, %v", i, got, err)
		}
	}
	goroutines, files := 0, 0
	for i := range reloads {
		if i == 10 { // what is made once is made by now
			goroutines, files = runtime.NumGoroutine(), descriptors(t, os.Getpid())
		}
		text := config(i + 1)
		if i%10 == 9 {
			text = strings.Replace(text, fmt.Sprintf("\t\t127.0.0.1:%d {", port), "\t\t"+taken.Addr().String()+" {", 1)
		}
		cfg, err := apptest.Adapt(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := caddy.Load(cfg, true); (err != nil) != (i%10 == 9) {
			t.Fatalf("reload %d: %v", i, err)
		}
		say(i*7%clients, fmt.Sprintf("after reload %d\n", i))
	}
	for i := range conns {
		say(i, "to the end\n")
	}
	if n := len(apptest.App(t).Running().State().Grants(nil)); n != clients {
		t.Errorf("%d grants of %d streams", n, clients)
	}
	apptest.Await(t, "what the reloads began to end", func() bool {
		return runtime.NumGoroutine() <= goroutines+5 && descriptors(t, os.Getpid()) <= files+5
	})
}
