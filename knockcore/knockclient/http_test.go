// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// TestHTTPKnock sends what Knocker servers expect and reads what they answer.
func TestHTTPKnock(t *testing.T) {
	const key = "a key of 128 bits or more"
	answer := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if len(header) == 2 {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the key went elsewhere: %v", r.Header)
	}))
	defer elsewhere.Close()
	var got *http.Request
	var body string
	var serve http.HandlerFunc
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, body = r, string(b)
		serve(w, r)
	}))
	defer server.Close()
	const granted = `{"whitelisted_entry":"203.0.113.7","expires_at":1795231724,"expires_in_seconds":14400}`
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		want  string // of the error, "" if there is none
	}{
		"granted":      {answer(200, granted), ""},
		"refused":      {answer(401, `{"error":"Invalid or missing API key."}`), "401: Invalid or missing"},
		"control":      {answer(401, `{"error":"\u001b[2J\u009b"}`), "401: ?[2J?"},
		"no JSON":      {answer(502, "<html>"), "502 Bad Gateway"},
		"other":        {answer(200, `{}`), "not as a server for knocks"},
		"redirect":     {answer(307, "", "Location", elsewhere.URL), "307: it is elsewhere"},
		"wrong type":   {answer(200, `{"whitelisted_entry":5}`), "not as a server"},
		"endless time": {answer(200, `{"whitelisted_entry":"x","expires_in_seconds":9223372036854775807}`), "not as a server"},
		"large":        {answer(200, strings.Repeat(" ", 1<<20)+granted), "not as a server"},
	} {
		t.Run(name, func(t *testing.T) {
			serve = c.serve
			k := &knockclient.HTTPKnock{URL: server.URL + "/", Key: knockcore.NewSecret([]byte(key)), TTL: time.Hour, Address: "203.0.113.7"}
			grant, err := k.Knock(t.Context())
			if c.want != "" {
				var answer *knockclient.HTTPError
				if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &answer) {
					t.Errorf("%v; expected %q", err, c.want)
				}
				return
			}
			if err != nil || grant.Entry != "203.0.113.7" || grant.For != 4*time.Hour || grant.Expires.Unix() != 1795231724 {
				t.Errorf("%+v, %v", grant, err)
			}
			if got.Method != http.MethodPost || got.URL.Path != "/knock" || got.Header.Get("X-Api-Key") != key ||
				got.Header.Get("Content-Type") != "application/json" || body != `{"ip_address":"203.0.113.7","ttl":3600}` {
				t.Errorf("%s %s %v %s", got.Method, got.URL, got.Header, body)
			}
		})
	}
	for url, ok := range map[string]bool{
		"https://knock.example.com": true, "https://knock.example.com/sub/knock": true, "knock.example.com": false,
		"https://user:password@knock.example.com": false, "https://knock.example.com/?key=x": false, "ssh://x": false,
	} {
		k := &knockclient.HTTPKnock{URL: url, Key: knockcore.NewSecret([]byte(key))}
		if err := k.Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
	}
}
