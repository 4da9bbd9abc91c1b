// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	_ "embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

var (
	//go:embed Caddyfile
	caddyfile string
	//go:embed forward-auth/Caddyfile
	forwardAuth string
	//go:embed nginx.conf
	nginxConf string
)

func TestMain(m *testing.M) { program.Main(m) }

const (
	phoneKey = "phone-key-0123456789abcdef"
	adminKey = "admin-key-0123456789abcdef"
)

// stage is the example, running for real: two Caddys and nginx in front of one
// application.
type stage struct {
	dir                      string
	caddy                    *program.Process
	knock, forwarding, nginx string // addresses
	app                      *httptest.Server
	keyFile                  string
}

func start(t *testing.T) *stage {
	t.Helper()
	nginx := program.Need(t, "nginx")
	s := &stage{dir: t.TempDir(), knock: program.FreeAddress(t), forwarding: program.FreeAddress(t), nginx: program.FreeAddress(t)}
	s.app = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "the application, %s %s", r.Method, r.URL.Path)
	}))
	t.Cleanup(s.app.Close)
	for name, key := range map[string]string{"phone.key": phoneKey, "admin.key": adminKey} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.keyFile = filepath.Join(s.dir, "phone.key")
	app := strings.TrimPrefix(s.app.URL, "http://")
	here := func(text string) string {
		for was, is := range map[string]string{
			"localhost:2019": program.FreeAddress(t), "localhost:2029": program.FreeAddress(t),
			"/etc/caddy/knock/": s.dir + "/", "\tknock {\n\t\tclient": "\tknock {\n\t\tallow_local\n\t\tclient", // all of this is on loopback
			"127.0.0.1:8096": app, "127.0.0.1:8080": s.knock, "example.com:8080": "example.com:" + port(s.knock),
			"example.com:8090": "example.com:" + port(s.forwarding), "127.0.0.1:8091": s.nginx,
			"/run/nginx-knock.pid": s.dir + "/nginx.pid", "http {\n": "http {\n" + temporary(s.dir),
		} {
			text = strings.ReplaceAll(text, was, is)
		}
		return text
	}
	s.caddy = program.StartCaddy(t, s.dir, here(caddyfile), s.knock)
	other := filepath.Join(s.dir, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	program.StartCaddy(t, other, here(forwardAuth), s.forwarding)
	conf := filepath.Join(s.dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(here(nginxConf)), 0o600); err != nil {
		t.Fatal(err)
	}
	program.Start(t, exec.Command(nginx, "-p", s.dir, "-c", conf, "-g", "master_process off;")).AwaitListener(t, s.nginx)
	return s
}

// temporary lets nginx run with a folder of its own.
func temporary(dir string) string {
	var b strings.Builder
	for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&b, "\t%s_temp_path %s/nginx-%s;\n", what, dir, what)
	}
	return b.String()
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

// ask sends a request from a loopback address and returns status and body.
func ask(t *testing.T, from, method, address, host, path string, headers ...string) (int, string) {
	t.Helper()
	local, err := net.ResolveTCPAddr("tcp", from+":0")
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: (&net.Dialer{LocalAddr: local}).DialContext}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(method, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(req)
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

const (
	knockHost, mediaHost, appHost = "knock.example.com", "media.example.com", "app.example.com"
	phone, stranger               = "127.0.0.5", "127.0.0.6"
)

// TestKnock: the same Caddy, another Caddy and nginx let in who knocked.
func TestKnock(t *testing.T) {
	s := start(t)
	sites := []struct {
		name, address, host string
		refusal             int
	}{{"this Caddy", s.knock, mediaHost, 403}, {"forward_auth", s.forwarding, appHost, 401}, {"nginx", s.nginx, appHost, 401}}
	expect := func(from string, in bool, path string, headers ...string) {
		t.Helper()
		for _, site := range sites {
			for _, method := range []string{"GET", "POST"} {
				status, text := ask(t, from, method, site.address, site.host, path, headers...)
				plain, _, _ := strings.Cut(path, "?")
				if in && (status != 200 || text != "the application, "+method+" "+plain) || !in && status != site.refusal {
					t.Errorf("%s, from %s, %s %s: %d %q", site.name, from, method, path, status, text)
				}
			}
		}
	}
	expect(phone, false, "/")
	// The refusal is ours to style.
	if _, text := ask(t, phone, "GET", s.knock, mediaHost, "/"); !strings.Contains(text, "<h1>Knock first</h1>") {
		t.Errorf("the refusal is %q", text)
	}
	// Exceptions hold everywhere, and tricks do not widen them.
	expect(phone, true, "/public/x?y=1")
	for _, path := range []string{"/public/..%2fadmin", "/public/%2e%2e/admin", "/publicx"} {
		if status, _ := ask(t, phone, "GET", s.nginx, appHost, path); status != 401 {
			t.Errorf("%s: %d", path, status)
		}
	}
	// Nobody gets in by naming an address.
	status, text := ask(t, phone, "POST", s.knock, knockHost, "/knock", "X-Api-Key", phoneKey)
	if status != 200 {
		t.Fatalf("knock: %d %s", status, text)
	}
	expect(phone, true, "/films")
	expect(stranger, false, "/films", "X-Forwarded-For", phone)
	expect(stranger, false, "/films", "X-Forwarded-For", "192.0.2.1", "X-Forwarded-Uri", "/public", "X-Forwarded-Host", "x")
}
