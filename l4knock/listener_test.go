// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

func TestHTTPBehindTheFrame(t *testing.T) {
	w := serveWrapped(t, "https", "", `respond "{http.request.remote.host} came to {http.request.tls.proto}"`)
	for proto, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		got := get(t, w.browser(t, asAlice(), http2), "https://"+w.address())
		want := proto + " 127.0.0.1 came to "
		if http2 {
			want += "h2"
		}
		if got != want {
			t.Errorf("got %q instead of %q", got, want)
		}
	}
}

func TestPlainHTTPBehindTheFrame(t *testing.T) {
	w := serveWrapped(t, "http", "", `respond "it works"`)
	browser := w.browser(t, asAlice(), false)
	for range 2 { // the second on the same connection
		if got := get(t, browser, "http://"+w.address()); got != "HTTP/1.1 it works" {
			t.Errorf("got %q", got)
		}
	}
	if live := apptest.App(t).Running().State().Len(); live != 1 {
		t.Errorf("%d connections are on the books", live)
	}
	browser.CloseIdleConnections()
	apptest.Await(t, "the connection to leave the books", func() bool { return apptest.App(t).Running().State().Len() == 0 })
}

func TestStrangersGetNothing(t *testing.T) {
	w := serveWrapped(t, "http", "wait 1s", `respond "the service"`)
	good := frame(t, w.port, nil)
	if got := exchange(t, w.port, append(good, request(w.port)...)); !strings.Contains(got, "the service") {
		t.Fatalf("a good frame got %q", got)
	}
	for name, head := range strangers(t, w.port, good) {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, w.port)
			_, _ = conn.Write(head)
			if got, err := io.ReadAll(conn); len(got) > 0 || err != nil {
				t.Errorf("got %q, %v instead of a silent end", got, err)
			}
		})
	}
}

func TestStrangersGetTheCover(t *testing.T) {
	w := serveWrapped(t, "http", "wait 2s\ncover "+apptest.Site(t, "the cover"), `respond "the service"`)
	good := frame(t, w.port, nil)
	if got := exchange(t, w.port, append(good, request(w.port)...)); !strings.Contains(got, "the service") {
		t.Fatalf("a good frame got %q", got)
	}
	for name, head := range strangers(t, w.port, good) {
		t.Run(name, func(t *testing.T) {
			got := exchange(t, w.port, head)
			if strings.Contains(got, "the service") {
				t.Errorf("reached the service: %q", got)
			}
			if name == "http" && !strings.HasSuffix(got, "the cover") {
				t.Errorf("the cover did not answer: %q", got)
			}
		})
	}
	t.Run("silence, then http", func(t *testing.T) {
		conn := dial(t, w.port)
		apptest.Await(t, "the connection to be decided", func() bool { return apptest.App(t).Pending().Len() == 0 })
		_, _ = io.WriteString(conn, request(w.port))
		if got, _ := io.ReadAll(conn); !strings.HasSuffix(string(got), "the cover") {
			t.Errorf("got %q", got)
		}
	})
}

// TestRevokeCutsConnections has two clients in the midst of a download.
func TestRevokeCutsConnections(t *testing.T) {
	upstream := endless(t)
	for scheme, http2 := range map[string]bool{"http": false, "https": true} {
		t.Run(scheme, func(t *testing.T) {
			w := serveWrapped(t, scheme, "", "reverse_proxy "+upstream+" {\n flush_interval -1\n }")
			bodies := make(map[string]io.Reader)
			for id, d := range map[string]*knockclient.Dialer{"alice": asAlice(), "bob": asBob()} {
				resp, err := w.browser(t, d, http2).Get(scheme + "://" + w.address())
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				bodies[id] = resp.Body
				if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
			}
			gate := apptest.App(t).Running()
			grants := gate.State().Grants(func(g *knockcore.Grant) bool { return g.Client == "alice" })
			if len(grants) != 1 {
				t.Fatalf("alice has %d grants", len(grants))
			}
			if ok, err := gate.Revoke(context.Background(), grants[0].ID, "test"); !ok || err != nil {
				t.Fatal(ok, err)
			}
			if _, err := io.Copy(io.Discard, bodies["alice"]); err == nil {
				t.Error("alice's download came to a good end")
			}
			if _, err := io.ReadFull(bodies["bob"], make([]byte, 1000)); err != nil {
				t.Errorf("bob's download broke: %v", err)
			}
		})
	}
}

// TestConnectionsEnd has a download that ends since its client is removed, and one
// whose grant runs out.
func TestConnectionsEnd(t *testing.T) {
	upstream := endless(t)
	for name, change := range map[string]func(w *wrapped){
		"the client is removed": func(w *wrapped) { apptest.Load(t, strings.Replace(w.text, "client alice", "client carol", 1)) },
		"the grant is over":     func(*wrapped) {},
	} {
		t.Run(name, func(t *testing.T) {
			w := wrap(t, "http", "", "reverse_proxy "+upstream+" {\n flush_interval -1\n }")
			if name == "the grant is over" {
				port := fmt.Sprint("service web tcp/", w.port)
				w.text = strings.Replace(w.text, port, port+" {\n open_for 3s\n on_expire cut\n }", 1)
			}
			apptest.Load(t, w.text)
			resp, err := w.browser(t, asAlice(), false).Get("http://" + w.address())
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			change(w)
			if _, err := io.Copy(io.Discard, resp.Body); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the download ended with %v", err)
			}
		})
	}
}

func TestSilentConnectionsDoNotStarveHTTP(t *testing.T) {
	w := serveWrapped(t, "https", "wait 60s\nmax_pending 64", `respond "it works"`)
	for i := range 200 {
		silent := dial(t, w.port)
		if i%2 == 0 {
			_, _ = silent.Write([]byte("x"))
		}
	}
	for range 20 {
		if got := get(t, w.browser(t, asAlice(), true), "https://"+w.address()); got != "HTTP/2.0 it works" {
			t.Errorf("got %q", got)
		}
	}
}

// TestReloadsKeepConnections reloads 20 times while clients come, and once in
// the middle of a frame.
func TestReloadsKeepConnections(t *testing.T) {
	w := serveWrapped(t, "https", "wait 60s", `respond "it works"`) // for half a frame to outlast a reload
	url := "https://" + w.address()
	kept := w.browser(t, asAlice(), true)
	_ = get(t, kept, url)
	reload := func(i int) {
		t.Helper()
		apptest.Load(t, strings.Replace(w.text, "it works", fmt.Sprint("it works ", i), 1))
		// Caddy's old server takes connections until it is closed, and loses some.
		apptest.Await(t, "the old listener to close", func() bool { return caddy.ListenerUsage("tcp", w.address()) == 1 })
	}
	reload(0)
	kept.CloseIdleConnections()
	before := runtime.NumGoroutine()

	half := frame(t, w.port, nil)
	conn := dial(t, w.port)
	_, _ = conn.Write(half[:50])
	apptest.Await(t, "half a frame to wait", func() bool { return apptest.App(t).Pending().Len() == 1 })

	for i := range 20 {
		reload(i + 1)
		if i == 0 {
			_, _ = conn.Write(half[50:])
			secure := tls.Client(conn, &tls.Config{RootCAs: w.roots, ServerName: "127.0.0.1"})
			_, _ = io.WriteString(secure, request(w.port))
			if got, err := io.ReadAll(secure); !strings.HasSuffix(string(got), "it works 1") {
				t.Errorf("the stream that came before the reload got %q, %v", got, err)
			}
			_ = conn.Close()
		}
		browser := w.browser(t, asBob(), i%2 == 0)
		var got string
		apptest.Await(t, "an answer", func() bool {
			resp, err := browser.Get(url)
			if err != nil {
				// The system resets what waits at the old socket when it is closed.
				return false
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			got = string(body)
			return true
		})
		if got != fmt.Sprint("it works ", i+1) {
			t.Errorf("reload %d: got %q", i, got)
		}
		browser.CloseIdleConnections()
	}
	apptest.Await(t, "the goroutines of old configurations to end", func() bool { return runtime.NumGoroutine() <= before+2 })
}
