// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/httpknock"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// TestBadRequests: what is wrong is answered as the contract says, or is refused.
func TestBadRequests(t *testing.T) {
	address := site(t, "127.0.0.1/32", adminClient, "\n\t\trate_limit off")
	const peer = "127.0.0.5"
	for _, c := range []struct {
		body   string
		status int
		text   string
	}{
		{`{"ip_address":"::ffff:0:0/96"}`, 400, "too broad"},
		{`{"ip_address":"0.0.0.0/0.0.0.0"}`, 400, "too broad"},
		{`{"ip_address":"0.0.0.0"}`, 400, "Invalid IP"},
		{`{"ip_address":"224.0.0.1"}`, 400, "Invalid IP"},
		{`{"ip_address":"ff02::1"}`, 400, "Invalid IP"},
		{`{"ip_address":"fe80::1%lo"}`, 400, "Invalid IP"},
		{`{"ip_address":"203.0.113.5/32"}`, 200, `"203.0.113.5/32"`},
		{`{"ttl":NaN}`, 400, "Invalid TTL"},
		{`{"ttl":99999999999999999999999}`, 400, "TTL too large"},
		{"{\"ip_address\":\"\xc3\x28\"}", 400, "Malformed"},
		{strings.Repeat("[", 4096), 400, "Malformed"},
		{`{"ttl":5}` + strings.Repeat(" ", 4096), 413, "too large"},
	} {
		if status, answer := knockAs(t, address, peer, adminKey, c.body); status != c.status || !strings.Contains(answer, c.text) {
			t.Errorf("%.60q: %d %s", c.body, status, answer)
		}
	}
	// The key counts in its header only, and never a second line of it.
	for name, f := range map[string]func(*http.Request){
		"query":      func(r *http.Request) { r.URL.RawQuery = "api_key=" + adminKey + "&X-Api-Key=" + adminKey },
		"bearer":     func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+adminKey) },
		"cookie":     func(r *http.Request) { r.Header.Set("Cookie", "X-Api-Key="+adminKey) },
		"underscore": func(r *http.Request) { r.Header["X_Api_Key"] = []string{adminKey} },
		"second":     func(r *http.Request) { r.Header["X-Api-Key"] = []string{"wrong", adminKey} },
		"case":       func(r *http.Request) { r.Header.Set("X-Api-Key", strings.ToUpper(adminKey)) },
		"prefix":     func(r *http.Request) { r.Header.Set("X-Api-Key", adminKey[:len(adminKey)-1]) },
	} {
		req, _ := http.NewRequest(http.MethodPost, "http://"+address+"/knock", nil)
		f(req)
		if status, _ := do(t, peer, req); status != http.StatusUnauthorized {
			t.Errorf("key by %s: %d", name, status)
		}
	}
	for _, method := range []string{"GET", "PUT", "DELETE", "PATCH", "HEAD", "KNOCK"} {
		req, _ := http.NewRequest(method, "http://"+address+"/knock", nil)
		req.Header.Set("X-Api-Key", adminKey)
		if status, _ := do(t, peer, req); status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, status)
		}
	}
	// What clients put together in a wrong way is forgiven.
	for _, path := range []string{"//knock", "/knock/"} {
		req, _ := http.NewRequest(http.MethodPost, "http://"+address, nil)
		req.URL.Opaque = "//" + address + path
		req.Header.Set("X-Api-Key", adminKey)
		if status, answer := do(t, peer, req); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	// Two lines of X-Forwarded-For count as one, a spoofed one in front says nothing.
	if answer := knockOK(t, address, "127.0.0.1", adminKey, "", "X-Forwarded-For", "203.0.113.50", "X-Forwarded-For", "203.0.113.51"); !strings.Contains(answer, `"203.0.113.51"`) {
		t.Errorf("two lines: %s", answer)
	}
	if status, _ := knockAs(t, address, "127.0.0.1", adminKey, "", "X-Forwarded-For", "x", "X-Forwarded-For", "203.0.113.51"); status != 400 {
		t.Errorf("a bad line in front: %d", status)
	}
}

// TestSlowBody: a body that does not come costs a connection for a while only.
func TestSlowBody(t *testing.T) {
	defer httpknock.SetBodyTimeout(200 * time.Millisecond)()
	address := site(t, "", adminClient, "")
	for _, key := range []string{adminKey, "wrong"} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(enough))
		fmt.Fprintf(conn, "POST /knock HTTP/1.1\r\nHost: %s\r\nX-Api-Key: %s\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{", address, key)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if resp.StatusCode < 400 || resp.StatusCode > 499 {
			t.Errorf("%s: status %d", key, resp.StatusCode)
		}
		_ = resp.Body.Close()
	}
}

// TestLimits: failing delays a right key and never refuses it; what is full says
// so, and keeps what it has.
func TestLimits(t *testing.T) {
	address := site(t, "127.0.0.1/32", adminClient, "\n\t\tmax_grants 2\n\t\trate_limit {\n\t\t\tfailed 2\n\t\t\tsuccessful off\n\t\t}")
	const peer = "127.0.0.5"
	for i, want := range []int{401, 401, 429} {
		if status, _ := knockAs(t, address, peer, "not the right key", ""); status != want {
			t.Errorf("failure %d: %d", i+1, status)
		}
	}
	knockOK(t, address, peer, adminKey, "")
	other := func(n int) (int, string) {
		return knockAs(t, address, "127.0.0.7", adminKey, fmt.Sprintf(`{"ip_address":"203.0.113.%d"}`, n))
	}
	if status, answer := other(1); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	if status, answer := other(2); status != 503 || !strings.Contains(answer, "capacity") {
		t.Errorf("a grant too many: %d %s", status, answer)
	}
	if status, _ := other(1); status != 200 {
		t.Errorf("renewing what is there: %d", status)
	}
	if status, _ := get(t, address, "127.0.0.1", "/verify", "X-Forwarded-For", "203.0.113.1"); status != 200 {
		t.Errorf("what was acknowledged is gone: %d", status)
	}
	if status, _ := get(t, address, peer, "/verify"); status != 200 {
		t.Errorf("what was acknowledged is gone: %d", status)
	}
}

// TestLogs: neither the access log nor any other shows a key.
func TestLogs(t *testing.T) {
	dir, address := t.TempDir(), fmt.Sprintf("127.0.0.1:%d", program.FreePort(t))
	access, all := filepath.Join(dir, "access.log"), filepath.Join(dir, "all.log")
	text := siteText(address, "127.0.0.1/32", adminClient, "")
	text = strings.Replace(text, "\tlog {\n\t\tlevel ERROR\n", "\tlog {\n\t\tlevel DEBUG\n\t\toutput file "+all+"\n", 1)
	text = strings.Replace(text, "\tbind 127.0.0.1\n", "\tbind 127.0.0.1\n\tlog {\n\t\toutput file "+access+"\n\t}\n", 1)
	apptest.Load(t, text)
	const wrong, peer = "a wrong key that is a secret elsewhere", "127.0.0.5"
	for _, key := range []string{adminKey, wrong} {
		for _, path := range []string{"/knock", "/knock/", "/verify", "/health", "/secret", "/nowhere"} {
			for _, method := range []string{"GET", "POST"} {
				req, _ := http.NewRequest(method, "http://"+address+path, strings.NewReader("x"))
				req.Header.Set("X-Api-Key", key)
				do(t, peer, req)
			}
		}
	}
	if status, _ := get(t, address, peer, "/after"); status != 404 {
		t.Fatalf("status %d", status)
	}
	read := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	apptest.Await(t, "the access log", func() bool { return strings.Contains(read(access), "/after") })
	if strings.Contains(read(access), "/knock") {
		t.Error("requests with a key are in the access log")
	}
	if !strings.Contains(read(all), `"msg":"knock"`) {
		t.Error("the handler has no line of its own")
	}
	for _, file := range []string{access, all} {
		log := read(file)
		for _, key := range []string{adminKey, wrong} {
			if strings.Contains(log, key) {
				t.Errorf("%s shows a key:\n%s", filepath.Base(file), log[max(0, strings.Index(log, key)-500):])
			}
		}
	}
}

// TestRefusalLooksLikeNothing: with `respond 404`, a page behind knocked looks to
// strangers like one that does not exist.
func TestRefusalLooksLikeNothing(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", program.FreePort(t))
	apptest.Load(t, strings.Replace(siteText(address, "", adminClient, ""), `	respond /secret "the secret page"
`, `	@in {
		path /secret
		knocked web
	}
	respond @in "the secret page"
	@expression `+"`path('/expression') && knocked() && knocked('web', 'web') && knocked_by('admin')`"+`
	respond @expression "by expression"
	@other `+"`path('/other') && !knocked_by('admin')`"+`
	respond @other "without"
`, 1))
	unknown := func(path string) string { return strings.ReplaceAll(rawGet(t, address, path), path, "") }
	for _, path := range []string{"/secret", "/expression"} {
		if got, want := unknown(path), unknown("/nowhere"); got != want || !strings.HasPrefix(got, "HTTP/1.1 404 ") {
			t.Errorf("%s is not as if it were not there:\n%s\n%s", path, got, want)
		}
	}
	if got := rawGet(t, address, "/other"); !strings.HasSuffix(got, "without") {
		t.Errorf("before: %q", got)
	}
	knockOK(t, address, "127.0.0.1", adminKey, "")
	for path, want := range map[string]string{"/secret": "the secret page", "/expression": "by expression", "/other": "\r\n\r\n"} {
		if got := rawGet(t, address, path); !strings.HasSuffix(got, want) {
			t.Errorf("%s after the knock: %q", path, got)
		}
	}
}

func rawGet(t *testing.T, address, path string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, address)
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(b), "\r\n")
	kept := lines[:0]
	for _, line := range lines {
		if !strings.HasPrefix(line, "Date:") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func TestAnswerIsJSON(t *testing.T) {
	var v struct {
		At int64 `json:"expires_at"`
		In int64 `json:"expires_in_seconds"`
	}
	if err := json.Unmarshal([]byte(knockOK(t, site(t, "", adminClient, ""), "127.0.0.5", adminKey, `{"ttl":90}`)), &v); err != nil || v.In != 90 {
		t.Errorf("%+v, %v", v, err)
	}
}
