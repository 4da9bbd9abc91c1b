// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestOpenAPI holds the document against the handler: each path and method that it
// names exists and no other, and what the handler answers is described, in status,
// headers and body.
func TestOpenAPI(t *testing.T) {
	address := site(t, "127.0.0.1/32", adminClient+"\n\t\tclient phone {\n\t\t\tapi_key "+phoneKey+"\n\t\t\tservices web\n\t\t}", "\n\t\tdocumentation\n\t\tmax_grants 3\n\t\trate_limit {\n\t\t\tsuccessful 2\n\t\t\tfailed 12\n\t\t}")
	const peer = "127.0.0.5"
	_, text := get(t, address, peer, "/openapi.json")
	var doc map[string]any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["openapi"] != "3.1.0" {
		t.Errorf("openapi is %v", doc["openapi"])
	}
	paths := doc["paths"].(map[string]any)
	for _, path := range []string{"/knock", "/verify", "/health", "/ready"} {
		methods, _ := paths[path].(map[string]any)
		for _, method := range []string{"get", "post", "options", "put", "delete", "patch"} {
			req, _ := http.NewRequest(strings.ToUpper(method), "http://"+address+path, nil)
			status, _ := do(t, "127.0.0.99", req)
			if described := methods[method] != nil; described == (status == http.StatusMethodNotAllowed) {
				t.Errorf("%s %s: %d, described: %v", method, path, status, described)
			}
		}
	}
	seen := make(map[string][]string)
	try := func(method, path, body string, headers ...string) {
		t.Helper()
		req, _ := http.NewRequest(method, "http://"+address+path, strings.NewReader(body))
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := from(t, peer).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		op := paths[path].(map[string]any)[strings.ToLower(method)].(map[string]any)
		status := strconv.Itoa(resp.StatusCode)
		seen[method+" "+path] = append(seen[method+" "+path], status)
		described, ok := op["responses"].(map[string]any)[status]
		if !ok {
			t.Errorf("%s %s: %s is not described", method, path, status)
			return
		}
		answer := deref(doc, described).(map[string]any)
		headersOf, _ := answer["headers"].(map[string]any)
		for name, h := range headersOf {
			if problem := fits(doc, deref(doc, h).(map[string]any)["schema"], resp.Header.Get(name)); problem != "" || resp.Header.Get(name) == "" {
				t.Errorf("%s %s %s: header %s: %s", method, path, status, name, problem)
			}
		}
		content, _ := answer["content"].(map[string]any)
		if content == nil {
			if len(b) > 0 {
				t.Errorf("%s %s %s has a body: %q", method, path, status, b)
			}
			return
		}
		media, ok := content[resp.Header.Get("Content-Type")].(map[string]any)
		var v any
		if err := json.Unmarshal(b, &v); err != nil || !ok {
			t.Errorf("%s %s %s: %q of type %s", method, path, status, b, resp.Header.Get("Content-Type"))
			return
		}
		if problem := fits(doc, media["schema"], v); problem != "" {
			t.Errorf("%s %s %s: %s: %s", method, path, status, b, problem)
		}
	}
	try("OPTIONS", "/knock", "")
	try("GET", "/health", "")
	try("GET", "/ready", "")
	try("GET", "/verify", "")
	try("POST", "/knock", "", "X-Api-Key", "wrong")
	try("POST", "/knock", `{"ttl":0}`, "X-Api-Key", adminKey)
	try("POST", "/knock", `{}`, "X-Api-Key", adminKey, "Content-Type", "text/plain")
	try("POST", "/knock", strings.Repeat(" ", 5000), "X-Api-Key", adminKey)
	try("POST", "/knock", `{"ip_address":"203.0.113.1"}`, "X-Api-Key", phoneKey)
	try("POST", "/knock", "", "X-Api-Key", adminKey, "Early-Data", "1")
	try("GET", "/verify", "", "Early-Data", "1")
	try("POST", "/knock", `{"ttl":60}`, "X-Api-Key", adminKey)
	try("GET", "/verify", "")
	try("POST", "/knock", "", "X-Api-Key", adminKey)
	try("POST", "/knock", "", "X-Api-Key", adminKey)
	for i := range 2 { // fill it up from elsewhere
		knockOK(t, address, "127.0.0.8", adminKey, fmt.Sprintf(`{"ip_address":"203.0.113.%d"}`, i+1))
	}
	if status, _ := knockAs(t, address, "127.0.0.9", adminKey, ""); status != 503 {
		t.Errorf("full: %d", status)
	}
	for op, want := range map[string][]string{
		"POST /knock": {"200", "400", "401", "403", "413", "415", "425", "429"}, "GET /verify": {"200", "401", "425"}, "GET /health": {"200"}, "OPTIONS /knock": {"204"},
	} {
		for _, status := range want {
			if !slices.Contains(seen[op], status) {
				t.Errorf("%s was never answered %s, but %v", op, status, seen[op])
			}
		}
	}
}

func deref(doc, v any) any {
	m, ok := v.(map[string]any)
	if !ok || m["$ref"] == nil {
		return v
	}
	for _, key := range strings.Split(strings.TrimPrefix(m["$ref"].(string), "#/"), "/") {
		doc = doc.(map[string]any)[key]
	}
	return deref(doc, doc)
}

// fits checks a value against what the document uses of JSON Schema.
func fits(doc map[string]any, schema, v any) string {
	s := deref(doc, schema).(map[string]any)
	var kind string
	switch v := v.(type) {
	case string:
		kind = "string"
	case float64:
		kind = "integer"
		if v != float64(int64(v)) {
			kind = "number"
		}
	case map[string]any:
		kind = "object"
		properties := s["properties"].(map[string]any)
		for name, member := range v {
			if properties[name] == nil {
				return "unknown member " + name
			}
			if problem := fits(doc, properties[name], member); problem != "" {
				return name + ": " + problem
			}
		}
		required, _ := s["required"].([]any)
		for _, name := range required {
			if v[name.(string)] == nil {
				return "no member " + name.(string)
			}
		}
	}
	if s["type"] != kind {
		return fmt.Sprintf("%v is no %v", v, s["type"])
	}
	if s["const"] != nil && s["const"] != v {
		return fmt.Sprintf("%v is not %v", v, s["const"])
	}
	if options, ok := s["enum"].([]any); ok && !slices.Contains(options, v) {
		return fmt.Sprintf("%v is none of %v", v, options)
	}
	return ""
}

// TestDocs: the page is there only if it should be, and loads nothing.
func TestDocs(t *testing.T) {
	address := site(t, "", adminClient, "\n\t\tdocumentation")
	status, page := get(t, address, "127.0.0.5", "/docs")
	if status != 200 || !strings.Contains(page, "POST /knock") || !strings.Contains(page, "ip_address") {
		t.Errorf("%d %.500s", status, page)
	}
	if found := regexp.MustCompile(`(?i)(src=|<script|<link|@import|url\(|href="?(https?:)?//)`).FindString(page); found != "" {
		t.Errorf("the page loads something: %q", found)
	}
	address = site(t, "", adminClient, "")
	for _, path := range []string{"/docs", "/openapi.json"} {
		if status, _ := get(t, address, "127.0.0.5", path); status != 404 {
			t.Errorf("%s without documentation: %d", path, status)
		}
	}
}
