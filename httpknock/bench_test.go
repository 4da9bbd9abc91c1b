// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-knock/caddy-knock/httpknock"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// benchText is a site with a handler, a matcher, and forward_auth to the handler.
func benchText(address string) string {
	client := strings.Replace(adminClient, "max_ttl 1h", "max_ttl 24h\n\t\t\tmax_grants 4000000", 1)
	text := strings.Replace(siteText(address, "127.0.0.1/32", client, "\n\t\tmax_grants 4000000\n\t\trate_limit off"), "\t\tallow_local\n", "\t\tallow_local\n\t\tmax_grants 4000000\n", 1)
	return strings.Replace(text, "\trespond /secret", `	handle /forward {
		forward_auth `+address+` {
			uri /verify?
		}
		respond "in"
	}
	@matched {
		path /matched
		knocked web
	}
	respond @matched "in"
	respond /secret`, 1)
}

// fill makes grants for as many addresses.
func fill(b *testing.B, count int) *knockcore.Gatekeeper {
	b.Helper()
	gate := apptest.App(b).Running()
	client := gate.Keyring().Client("admin")
	for n := gate.State().Len(); n < count; n++ {
		source := netip.AddrFrom4([4]byte{20, byte(n >> 16), byte(n >> 8), byte(n)})
		if _, err := gate.Admit(b.Context(), knockcore.Knock{Client: client, Method: knockcore.MethodHTTP, Source: source, Length: 24 * time.Hour}); err != nil {
			b.Fatal(err)
		}
	}
	return gate
}

func counts(b *testing.B, f func(*testing.B, int)) {
	for _, n := range []int{1, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("grants=%d", n), func(b *testing.B) { f(b, n) })
	}
}

// matcher makes a matcher and a request of somebody who holds a grant.
func matcher(t testing.TB) (*httpknock.Knocked, *http.Request) {
	t.Helper()
	m := &httpknock.Knocked{Knocked: knockapp.Knocked{Services: []string{"web"}}}
	if err := m.Provision(caddy.ActiveContext()); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "http://localhost/", nil)
	r.RemoteAddr = "20.0.0.0:4711"
	return m, r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{caddyhttp.TrustedProxyVarKey: false}))
}

func BenchmarkMatcher(b *testing.B) {
	address := fmt.Sprintf("127.0.0.1:%d", program.FreePort(b))
	apptest.Load(b, benchText(address))
	m, r := matcher(b)
	counts(b, func(b *testing.B, n int) {
		fill(b, n)
		b.ReportAllocs()
		for b.Loop() {
			if ok, err := m.MatchWithError(r); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
}

// BenchmarkRequest asks a Caddy over a connection that stays: for a page behind the
// matcher, for /verify, and for a page behind forward_auth to /verify.
func BenchmarkRequest(b *testing.B) {
	address := fmt.Sprintf("127.0.0.1:%d", program.FreePort(b))
	apptest.Load(b, benchText(address))
	client := &http.Client{}
	for _, path := range []string{"/matched", "/verify", "/forward"} {
		b.Run(path[1:], func(b *testing.B) {
			counts(b, func(b *testing.B, n int) {
				fill(b, n)
				req, _ := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
				req.Header.Set("X-Forwarded-For", "20.0.0.0")
				for b.Loop() {
					request(b, client, req, http.StatusOK)
				}
			})
		})
	}
}

func request(b *testing.B, client *http.Client, req *http.Request, status int) {
	resp, err := client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != status {
		b.Fatalf("status %d", resp.StatusCode)
	}
}

// BenchmarkKnock knocks over connections that stay.
func BenchmarkKnock(b *testing.B) {
	address := fmt.Sprintf("127.0.0.1:%d", program.FreePort(b))
	apptest.Load(b, benchText(address))
	b.RunParallel(func(pb *testing.PB) {
		client := &http.Client{}
		for pb.Next() {
			req, _ := http.NewRequest(http.MethodPost, "http://"+address+"/knock", nil)
			req.Header.Set("X-Api-Key", adminKey)
			req.Header.Set("X-Forwarded-For", "20.0.0.1")
			request(b, client, req, http.StatusOK)
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "knocks/s")
}

// TestMatcherAllocates: looking an address up costs no memory.
func TestMatcherAllocates(t *testing.T) {
	site(t, "127.0.0.1/32", adminClient, "")
	m, r := matcher(t)
	if n := testing.AllocsPerRun(100, func() { _, _ = m.MatchWithError(r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
