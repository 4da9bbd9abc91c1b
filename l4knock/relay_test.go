// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// relaySetup runs Caddy with knock_relay to the upstream, and returns the port.
func relaySetup(t *testing.T, service, knock, relay string) int {
	t.Helper()
	port := program.FreePort(t)
	apptest.Load(t, fmt.Sprintf(`{
	admin off
	knock {
		client alice {
			secret "%s"
			services echo
		}
		client bob {
			secret "%s of bob"
			services echo
		}
		service echo tcp/%d {
			%s
		}
	}
	layer4 {
		127.0.0.1:%d {
			route {
				knock echo {
					%s
					admit {
						knock_relay %s
					}
				}
			}
		}
	}
}`, secret, secret, port, service, port, knock, relay))
	return port
}

// enter comes as a client and returns the stream, behind the service's greeting.
func enter(t testing.TB, port int, id string) *net.TCPConn {
	t.Helper()
	text := secret
	if id != "alice" {
		text += " of " + id
	}
	f := &wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: uint16(port), Time: time.Now().UnixMilli()}
	b, err := f.Seal(credential(id, text))
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, port)
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	greeting := make([]byte, len("service\n"))
	if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "service\n" {
		t.Fatalf("%s got %q, %v", id, greeting, err)
	}
	return conn
}

func TestRelayWholeAnswerAfterHalfClose(t *testing.T) {
	// An upstream that answers only when the request has ended, and at length.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				request, _ := io.ReadAll(conn)
				_, _ = conn.Write(bytes.Repeat(request, 10_000))
			}()
		}
	}()
	port := relaySetup(t, "", "", ln.Addr().String())
	for range 20 {
		if got := exchange(t, port, append(frame(t, port, nil), "request\n"...)); got != strings.Repeat("request\n", 10_000) {
			t.Fatalf("got %d bytes", len(got))
		}
	}
}

func TestRelayProxyProtocol(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	headers := make(chan *proxyproto.Header, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		h, err := proxyproto.Read(bufio.NewReader(conn))
		if err != nil {
			t.Error(err)
		}
		headers <- h
	}()
	port := relaySetup(t, "", "", ln.Addr().String()+" {\n proxy_protocol v2\n}")
	conn := dial(t, port)
	if _, err := conn.Write(frame(t, port, nil)); err != nil {
		t.Fatal(err)
	}
	h := <-headers
	if h.SourceAddr.String() != conn.LocalAddr().String() {
		t.Errorf("source %v", h.SourceAddr)
	}
	tlvs, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[proxyproto.PP2Type]string)
	for _, tlv := range tlvs {
		found[tlv.Type] = string(tlv.Value)
	}
	if found[0xe0] != "alice" || found[0xe1] != "echo" {
		t.Errorf("TLVs %v", found)
	}
}

func TestRevokeCutsOneClientOnly(t *testing.T) {
	port := relaySetup(t, "", "", apptest.Echo(t, "service\n"))
	alice, bob := enter(t, port, "alice"), enter(t, port, "bob")
	gate := apptest.App(t).Running()
	for _, g := range gate.State().Grants(func(g *knockcore.Grant) bool { return g.Client == "alice" }) {
		if ok, err := gate.Revoke(t.Context(), g.ID, "test"); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if _, err := alice.Read(make([]byte, 1)); err == nil {
		t.Error("alice's stream lives")
	}
	if _, err := bob.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(bob, make([]byte, 5)); err != nil {
		t.Errorf("bob's stream died: %v", err)
	}
}

func TestCutOnExpire(t *testing.T) {
	port := relaySetup(t, "open_for 3s\non_expire cut", "", apptest.Echo(t, "service\n"))
	conn := enter(t, port, "alice")
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the stream outlives its grant")
	}
}

func TestRelayLimits(t *testing.T) {
	port := relaySetup(t, "", "", apptest.Echo(t, "service\n")+" {\n max_per_client 2\n}")
	first := enter(t, port, "alice")
	enter(t, port, "alice")
	if got := exchange(t, port, frame(t, port, nil)); got != "" {
		t.Errorf("the third relay got %q", got)
	}
	enter(t, port, "bob")
	_ = first.Close()
	apptest.Await(t, "a place to be free again", func() bool {
		return exchange(t, port, frame(t, port, nil)) == "service\n"
	})
}

func TestRelayFallsBack(t *testing.T) {
	closed := fmt.Sprintf("127.0.0.1:%d", program.FreePort(t))
	port := relaySetup(t, "", "", closed+" "+apptest.Echo(t, "service\n"))
	if got := exchange(t, port, frame(t, port, nil)); got != "service\n" {
		t.Errorf("got %q", got)
	}
}

func TestCoverOption(t *testing.T) {
	port := relaySetup(t, "", "wait 5s\ncover "+apptest.Site(t, "cover"), apptest.Echo(t, "service\n"))
	request := "GET / HTTP/1.0\r\n\r\n"
	for name, chunks := range map[string][][]byte{
		"at once":   {[]byte(request)},
		"byte-wise": split([]byte(request)),
		"unknown":   {[]byte("POST /" + strings.Repeat("x", 100) + " HTTP/1.0\r\n\r\n")},
	} {
		if got := exchange(t, port, chunks...); !strings.HasSuffix(got, "cover") {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := exchange(t, port); strings.Contains(got, "service") {
		t.Errorf("half-close got %q", got)
	}
	before := runtime.NumGoroutine()
	for range 50 {
		if got := exchange(t, port, frame(t, port, nil)); got != "service\n" {
			t.Fatalf("a client got %q", got)
		}
	}
	apptest.Await(t, "unused cover connections to be gone", func() bool { return runtime.NumGoroutine() <= before+5 })
}

func TestRelayConfigErrors(t *testing.T) {
	for relay, want := range map[string]string{
		"":                                       "knock_relay has no upstream",
		"127.0.0.1":                              "needs one port",
		"udp/127.0.0.1:53":                       "can't be relayed to",
		"127.0.0.1:1-5":                          "needs one port",
		"127.0.0.1:22 {\n proxy_protocol v3\n}":  "expect v1 or v2",
		"127.0.0.1:22 {\n idle_timeout never\n}": "positive duration",
		"127.0.0.1:22 {\n colour red\n}":         "unknown option",
	} {
		err := apptest.TryLoad(t, fmt.Sprintf("{\n admin off\n knock {\n service s tcp/1\n}\n layer4 {\n 127.0.0.1:%d {\n route {\n knock_relay %s\n}\n}\n}\n}", program.FreePort(t), relay))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Caddyfile:") {
			t.Errorf("%q: %v", relay, err)
		}
	}
}
