// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/importer"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

func TestMain(m *testing.M) { program.Main(m) }

const (
	adminKey   = "test-admin-0123456789abcdef"
	phoneKey   = "test-phone-0123456789abcdef"
	guestKey   = "test-guest-0123456789abcdef"
	foreverKey = "test-forever-0123456789abcdef"
)

// vectorConfigs are the configurations of the recorded exchanges, as ours.
var vectorConfigs = map[string]struct{ proxies, clients, handler string }{
	"main": {
		"127.0.0.1/32 ::1/128 10.9.0.0/24",
		fmt.Sprintf(`
		client admin {
			api_key %s
			services web
			max_ttl 1h
			allow_remote /16 /64
		}
		client phone {
			api_key %s
			services web
			max_ttl 4h
		}
		client guest {
			api_key %s
			services web
			max_ttl 10m
		}
		client forever {
			api_key %s
			services web
			max_ttl 999999999s
			allow_remote /16 /64
		}`, adminKey, phoneKey, guestKey, foreverKey),
		`
		always_allowed 192.0.2.0/28 2001:db8:aaaa::/48
		excluded_paths /public /static/
		excluded_paths media.example /open
		excluded_paths * /any
		cors_origin https://app.example
		rate_limit off`,
	},
	"ratelimit": {"127.0.0.1/32", adminClient, `
		rate_limit {
			successful 2
			failed 2
		}`},
	"small": {"127.0.0.1/32", adminClient, `
		max_grants 2
		rate_limit off`},
	"defaults": {"", fmt.Sprintf(`
		client phone {
			api_key %s
			services web
			max_ttl 4h
		}`, phoneKey), ""},
	"docs": {"127.0.0.1/32", adminClient, `
		documentation`},
}

var adminClient = fmt.Sprintf(`
		client admin {
			api_key %s
			services web
			max_ttl 1h
			allow_remote /16 /64
		}`, adminKey)

// site loads a Caddy in this process and returns its address.
func site(t testing.TB, proxies, clients, handler string) string {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", program.FreePort(t))
	apptest.Load(t, siteText(address, proxies, clients, handler))
	return address
}

func siteText(address, proxies, clients, handler string) string {
	if proxies != "" {
		proxies = "servers {\n\t\ttrusted_proxies static " + proxies + "\n\t\ttrusted_proxies_strict\n\t}"
	}
	_, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf(`{
	admin off
	persist_config off
	log {
		level ERROR
	}
	%s
	knock {
		store memory
		allow_local
		%s
		service web tcp/%s
	}
}
http://:%s {
	bind 127.0.0.1
	knock {%s
	}
	respond /secret "the secret page"
	respond 404
}
`, proxies, clients, port, port, handler)
}

// from makes an HTTP client whose connections come from the address.
func from(t testing.TB, peer string) *http.Client {
	t.Helper()
	transport := &http.Transport{
		DialContext:        (&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(peer), 0))}).DialContext,
		DisableCompression: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// exchange is a recorded one.
type exchange struct {
	ID      string
	Config  string
	Peer    string
	Request struct {
		Method, Path string
		Headers      [][2]string
		Body         *string
		BodyB64      string `json:"body_b64"`
		Chunked      bool
	}
	Response struct {
		Status  int
		Headers map[string]string
		Body    *string
		JSON    any
		Expires int64 `json:"expires_at_minus_request_time"`
	}
	DeviateOK string `json:"deviate_ok"`
}

// play sends the request and compares the answer.
func (e *exchange) play(t *testing.T, address string) {
	var body io.Reader
	switch {
	case e.Request.BodyB64 != "":
		b, err := base64.StdEncoding.DecodeString(e.Request.BodyB64)
		if err != nil {
			t.Fatal(err)
		}
		body = bytes.NewReader(b)
	case e.Request.Body != nil:
		body = strings.NewReader(*e.Request.Body)
	}
	req, err := http.NewRequest(e.Request.Method, "http://"+address+e.Request.Path, body)
	if err != nil {
		t.Fatal(err)
	}
	if e.Request.Chunked {
		req.ContentLength = -1
	}
	for _, h := range e.Request.Headers {
		req.Header.Add(h[0], h[1])
	}
	before := time.Now().Unix()
	resp, err := from(t, e.Peer).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	after := time.Now().Unix()
	if e.DeviateOK != "" {
		if resp.StatusCode < 400 || resp.StatusCode > 499 {
			t.Errorf("status %d instead of a 4xx (%s)", resp.StatusCode, e.DeviateOK)
		}
		return
	}
	if resp.StatusCode != e.Response.Status {
		t.Fatalf("status %d instead of %d: %s", resp.StatusCode, e.Response.Status, got)
	}
	for name, value := range e.Response.Headers {
		if resp.Header.Get(name) != value {
			t.Errorf("%s is %q instead of %q", name, resp.Header.Get(name), value)
		}
	}
	if e.Response.Body != nil && string(got) != *e.Response.Body {
		t.Errorf("the body is %q instead of %q", got, *e.Response.Body)
	}
	if e.Response.JSON == nil {
		return
	}
	var answer any
	if err := json.Unmarshal(got, &answer); err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	if want := e.Response.JSON.(map[string]any); e.Response.Expires != 0 {
		at, _ := answer.(map[string]any)["expires_at"].(float64)
		if made := int64(at) - e.Response.Expires; made < before || made > after {
			t.Errorf("expires_at is of a grant made at %d, not from %d to %d", made, before, after)
		}
		want["expires_at"] = at
	}
	if !reflect.DeepEqual(answer, e.Response.JSON) {
		t.Errorf("%v instead of %v", answer, e.Response.JSON)
	}
}

// TestRecordedExchanges replays what a Knocker server answered: against our
// configurations, and against those that the importer makes of Knocker's.
func TestRecordedExchanges(t *testing.T) {
	b, err := os.ReadFile("testdata/knocker-exchanges.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Configs   map[string]string
		Exchanges []*exchange
	}
	if err := json.Unmarshal(b, &recorded); err != nil {
		t.Fatal(err)
	}
	played := 0
	play := func(t *testing.T, config, address string) {
		for _, e := range recorded.Exchanges {
			if e.Config == config {
				if e.ID == "rl-success-3" {
					// The second success was played between, but is not in the file.
					knockOK(t, address, e.Peer, adminKey, "", "X-Forwarded-For", "203.0.113.60")
				}
				played++
				t.Run(e.ID, func(t *testing.T) { e.play(t, address) })
			}
		}
	}
	for config, c := range vectorConfigs {
		t.Run(config, func(t *testing.T) { play(t, config, site(t, c.proxies, c.clients, c.handler)) })
	}
	for config, text := range recorded.Configs {
		t.Run("imported "+config, func(t *testing.T) {
			imported, err := importer.Knocker([]byte(text), []byte(`{"203.0.113.99": 1}`), importer.Options{File: "knocker.yaml"}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			port := program.FreePort(t)
			imported = strings.Replace(imported, "\n{\n", "\n{\n\tadmin off\n\tpersist_config off\n\tlog {\n\t\tlevel ERROR\n\t}\n", 1)
			imported = strings.Replace(imported, "\tknock {\n", "\tknock {\n\t\tallow_local\n\t\tstore memory\n", 1)
			imported = strings.Replace(imported, "\nhttp://:8000 {\n", fmt.Sprintf("\nhttp://:%d {\n\tbind 127.0.0.1\n\trespond 404\n", port), 1)
			apptest.Load(t, imported)
			play(t, config, fmt.Sprintf("127.0.0.1:%d", port))
		})
	}
	if played != 2*len(recorded.Exchanges) || played == 0 {
		t.Errorf("%d of %d exchanges were played twice", played, len(recorded.Exchanges))
	}
}

// knockAs sends a knock and returns the answer's status and body.
func knockAs(t testing.TB, address, peer, key, body string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+address+"/knock", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("X-Api-Key", key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return do(t, peer, req)
}

func do(t testing.TB, peer string, req *http.Request) (int, string) {
	t.Helper()
	resp, err := from(t, peer).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func knockOK(t testing.TB, address, peer, key, body string, headers ...string) string {
	t.Helper()
	status, answer := knockAs(t, address, peer, key, body, headers...)
	if status != http.StatusOK {
		t.Fatalf("the knock was answered %d: %s", status, answer)
	}
	return answer
}

// get asks for a page.
func get(t testing.TB, address, peer, path string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque = path // as it is
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return do(t, peer, req)
}
