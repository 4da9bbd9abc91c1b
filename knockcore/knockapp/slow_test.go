// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// TestSlowReaders has readers of the event stream that stop reading: knocks and other
// readers wait for none of them, and each is cut off.
func TestSlowReaders(t *testing.T) {
	const slow = 5
	a := startAdmin(t, adminClients+"\n\tstore memory")
	for range slow {
		conn, err := net.Dial("tcp", a.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.(*net.TCPConn).SetReadBuffer(4096)
		if _, err := fmt.Fprintf(conn, "GET /knock/events HTTP/1.1\r\nHost: %s\r\n\r\n", a.address); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReaderSize(conn, 16)
		for line := ""; !strings.HasPrefix(line, ": caddy-knock"); { // and no byte more than that
			if line, err = r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
	}
	good, err := a.follow(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	// Whoever reads gets everything, or is told how much he missed.
	seen, missed, done := 0, 0, make(chan struct{})
	go func() {
		defer close(done)
		for {
			switch e := good.next(t); {
			case e == nil:
				return
			case e["missed"] != nil:
				missed += int(e["missed"].(float64))
			default:
				if seen++; e["client"] == "bob" { // the last one
					return
				}
			}
		}
	}()
	readers := regexp.MustCompile(`"events_readers":(\d+)`)
	following := func() int {
		_, body := a.call("GET", "/knock/status", "")
		n, _ := strconv.Atoi(readers.FindStringSubmatch(body)[1])
		return n
	}
	if n := following(); n != slow+1 {
		t.Fatalf("%d readers", n)
	}
	gate, grants := apptest.App(t).Running(), 0
	grant := func(client string) {
		if _, err := gate.GrantByHand(t.Context(), client, "ssh", netip.MustParsePrefix("203.0.113.7/32"), 0); err != nil {
			t.Fatal(err)
		}
		grants++
	}
	for deadline := time.Now().Add(50 * time.Second); following() > 1; { // what the kernel takes in for them is full some time
		if time.Now().After(deadline) {
			t.Fatalf("after %d events %d readers are left", grants, following())
		}
		for range 1000 {
			grant("alice")
		}
	}
	grant("bob")
	<-done
	if seen+missed != grants {
		t.Errorf("%d events seen and %d missed of %d", seen, missed, grants)
	}
	t.Logf("%d events; the good reader saw %d", grants, seen)
}
