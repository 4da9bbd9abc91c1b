// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package apptest runs Caddy in the process of a test, with a Caddyfile.
package apptest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile" // registers the adapter

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

// Adapt turns a Caddyfile into JSON as `caddy adapt` does. Warnings are errors,
// but for the one about formatting.
func Adapt(caddyfileText string) ([]byte, error) {
	adapter := caddyconfig.GetAdapter("caddyfile")
	cfg, warnings, err := adapter.Adapt([]byte(caddyfileText), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		if !strings.Contains(w.Message, "not formatted") {
			return nil, fmt.Errorf("%s:%d: warning: %s", w.File, w.Line, w.Message)
		}
	}
	return cfg, nil
}

// Load runs Caddy with the Caddyfile, in place of what ran before, until the
// test ends. There is one Caddy per process: tests that use it can't be
// parallel.
func Load(t testing.TB, caddyfileText string) {
	t.Helper()
	if err := TryLoad(t, caddyfileText); err != nil {
		t.Fatalf("loading: %v", err)
	}
}

// TryLoad is Load for configurations that may be refused.
func TryLoad(t testing.TB, caddyfileText string) error {
	t.Helper()
	cfg, err := Adapt(caddyfileText)
	if err != nil {
		return err
	}
	ownData(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	return caddy.Load(cfg, true)
}

// ownData gives the test a data directory of its own, once.
func ownData(t testing.TB) {
	const done = "KNOCK_APPTEST_DATA"
	if os.Getenv(done) == "" {
		t.Setenv(done, "1")
		t.Setenv("XDG_DATA_HOME", t.TempDir())
	}
}

// App returns the running knock app.
func App(t testing.TB) *knockapp.App {
	t.Helper()
	app, err := caddy.ActiveContext().AppIfConfigured("knock")
	if err != nil {
		t.Fatalf("no knock app: %v", err)
	}
	return app.(*knockapp.App)
}

// Echo starts a TCP server that sends a greeting, echoes what it gets and closes
// when the peer has. It returns its address.
func Echo(t testing.TB, greeting string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, greeting)
				// Hiding what the connection can do besides: a spliced copy would hold a
				// pipe for each connection.
				_, _ = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
			}()
		}
	}()
	return ln.Addr().String()
}

// Site starts an HTTP server that answers with a text. It returns its address.
func Site(t testing.TB, text string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	return ln.Addr().String()
}

// Await polls until the condition holds, and fails the test if it does not for
// 20 seconds.
func Await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
