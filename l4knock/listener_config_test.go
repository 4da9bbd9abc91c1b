// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock_test

import (
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// TestListenerErrors expects each mistake to be told with its place.
func TestListenerErrors(t *testing.T) {
	for name, test := range map[string]struct{ scheme, options, old, replace, want string }{
		"unknown option":   {"http", "covr 127.0.0.1:80", "", "", `unknown option "covr"; did you mean cover? Expect service, wait, cover`},
		"twice":            {"http", "wait 1s\n\t\t\t\twait 2s", "", "", "option wait was given before, at line 25"},
		"service twice":    {"http", "service web", "", "", "the service is named already: web"},
		"two services":     {"http", "", "knock web {", "knock web ssh {", "one argument at most"},
		"unknown service":  {"http", "", "knock web {", "knock wbe {", `Caddyfile:24: there is no service "wbe"`},
		"foreign method":   {"http", "methods udp", "", "", "udp is not a frame inside a TCP stream"},
		"bad hint mode":    {"http", "hint_mode maybe", "", "", "expect route-hint or none"},
		"bad port":         {"http", "port 70000", "", "", "greater than 65535"},
		"bad bucket":       {"http", "buckets 100", "", "", "no envelope has 100 bytes"},
		"cover without":    {"http", "cover 127.0.0.1", "", "", "Caddyfile:24: cover:"},
		"cover by udp":     {"http", "cover udp/127.0.0.1:53", "", "", "Caddyfile:24: cover:"},
		"cover not set":    {"http", "cover {env.KNOCK_NOT_SET}", "", "", "Caddyfile:24: cover:"},
		"unix socket":      {"http", "", "bind 127.0.0.1", "bind unix//nonexistent/socket", "has no port that frames could name"},
		"http3 by default": {"https", "", "protocols h1 h2\n", "\n", "add `protocols h1 h2`"},
		"http3":            {"https", "", "protocols h1 h2", "protocols h1 h3", "HTTP/3 on 127.0.0.1:"},
		"no tls":           {"https", "", "\t\t\ttls\n", "\n", "put `tls` after `knock`"},
		"behind tls":       {"https", "", "knock web {\n\t\t\t\t\n\t\t\t}\n\t\t\ttls", "http_redirect\n\t\t\ttls\n\t\t\tknock web", "put `tls` after `knock`"},
	} {
		t.Run(name, func(t *testing.T) {
			text := wrap(t, test.scheme, test.options, `respond "it works"`).text
			if test.old != "" && !strings.Contains(text, test.old) {
				t.Fatalf("%q is not in\n%s", test.old, text)
			}
			err := apptest.TryLoad(t, strings.Replace(text, test.old, test.replace, 1))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("expected %q, got %v", test.want, err)
			}
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Errorf("no place in: %v", err)
			}
		})
	}
}

// TestHTTP3MayBeSkipped loads what has HTTP/3 among its protocols, but does not
// serve it.
func TestHTTP3MayBeSkipped(t *testing.T) {
	w := wrap(t, "http", "", `respond "it works"`)
	w.text = strings.Replace(w.text, "protocols h1\n", "\n", 1)
	apptest.Load(t, w.text)
	if got := get(t, w.browser(t, asAlice(), false), "http://"+w.address()); got != "HTTP/1.1 it works" {
		t.Errorf("got %q", got)
	}
}
