// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/httpknock"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/device"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// secureSite loads a site with a page behind a trusted proxy, which says that
// browsers come by HTTPS.
func secureSite(t *testing.T, clients string) string {
	t.Helper()
	return site(t, "127.0.0.1/32", clients, "\n\t\tpage https://knock.test {\n\t\t\tv4 https://v4.knock.test\n\t\t}\n\t\trate_limit off")
}

// ask sends a request as a browser does, of the address.
func ask(t *testing.T, address, method, path, key string, form url.Values, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+address+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "knock.test"
	for name, value := range map[string]string{"X-Forwarded-For": "203.0.113.5", "X-Forwarded-Proto": "https", "Sec-Fetch-Site": "same-origin"} {
		req.Header.Set(name, value)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if key != "" {
		req.AddCookie(&http.Cookie{Name: "__Host-knock", Value: key})
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if req.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	resp, err := from(t, "127.0.0.1").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// TestPageForgery: a cookie counts only in requests that come from the page, over
// HTTPS; nothing else opens, closes, keeps or forgets anything.
func TestPageForgery(t *testing.T) {
	address := secureSite(t, adminClient)
	open := url.Values{"do": {"open"}}
	for name, c := range map[string]struct {
		form    url.Values
		status  int
		headers []string
	}{
		"another site":       {open, 403, []string{"Sec-Fetch-Site", "cross-site"}},
		"a sister site":      {open, 403, []string{"Sec-Fetch-Site", "same-site"}},
		"nothing said":       {open, 403, []string{"Sec-Fetch-Site", ""}},
		"another origin":     {open, 403, []string{"Sec-Fetch-Site", "", "Origin", "https://evil.test"}},
		"no origin":          {open, 403, []string{"Sec-Fetch-Site", "", "Origin", "null"}},
		"in the clear":       {open, 403, []string{"X-Forwarded-Proto", "http"}},
		"a key from outside": {url.Values{"do": {"key"}, "key": {adminKey}}, 403, []string{"Sec-Fetch-Site", "cross-site"}},
		"early":              {open, 425, []string{"Early-Data", "1"}},
		"too large":          {url.Values{"do": {strings.Repeat("x", 5000)}}, 413, nil},
		"nonsense":           {url.Values{"do": {"nonsense"}}, 400, nil},
		"bad length":         {url.Values{"do": {"open"}, "ttl": {"-1"}}, 400, nil},
		"bad address":        {url.Values{"do": {"open"}, "address": {"x\x00"}}, 400, nil},
		"all of it":          {url.Values{"do": {"open"}, "address": {"0.0.0.0/0"}}, 400, nil},
	} {
		t.Run(name, func(t *testing.T) {
			resp, text := ask(t, address, "POST", "/", adminKey, c.form, c.headers...)
			if resp.StatusCode != c.status {
				t.Errorf("status %d instead of %d", resp.StatusCode, c.status)
			}
			if strings.Contains(text, adminKey) {
				t.Error("the page shows the key")
			}
		})
	}
	if n := len(apptest.App(t).Running().State().Grants(nil)); n != 0 {
		t.Fatalf("%d grants", n)
	}
	// Old browsers say the origin.
	if resp, text := ask(t, address, "POST", "/", adminKey, open, "Sec-Fetch-Site", "", "Origin", "https://knock.test"); resp.StatusCode != 200 || !strings.Contains(text, "Extend") {
		t.Errorf("from the page: %d", resp.StatusCode)
	}
	// A key in a URL or elsewhere is none.
	if _, text := ask(t, address, "GET", "/?key="+adminKey, "", nil, "X-Api-Key", adminKey); strings.Contains(text, "data-known") {
		t.Error("a key counts that is not in the cookie")
	}
}

// TestPageHeaders: the cookie, the policy, and nothing that others could keep.
func TestPageHeaders(t *testing.T) {
	address := secureSite(t, adminClient)
	resp, _ := ask(t, address, "POST", "/", "", url.Values{"do": {"key"}, "key": {adminKey}})
	cookie := resp.Header.Get("Set-Cookie")
	for _, part := range []string{"__Host-knock=" + adminKey, "; Path=/;", "HttpOnly", "Secure", "SameSite=Strict"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("the cookie %q has no %q", cookie, part)
		}
	}
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "./" {
		t.Errorf("%d to %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	resp, text := ask(t, address, "GET", "/", adminKey, nil)
	csp := resp.Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "connect-src 'self' https://v4.knock.test;") || strings.Contains(csp, "unsafe") {
		t.Errorf("the policy is %s", csp)
	}
	if resp.Header.Get("Cache-Control") != "no-store" || regexp.MustCompile(`(?i)<script>|<style|\sstyle=|\son[a-z]+=`).MatchString(text) {
		t.Errorf("the page can be kept, or has scripts or styles inside")
	}
	// All that a visit loads is below 60 KB, and comes from here.
	total := len(text)
	entries, err := os.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".tmpl") {
			continue
		}
		resp, body := ask(t, address, "GET", "/page/"+entry.Name(), "", nil)
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") == "" {
			t.Errorf("%s: %d", entry.Name(), resp.StatusCode)
		}
		if urls := regexp.MustCompile(`https?://[^"' )]+`).FindAllString(strings.ReplaceAll(body, "http://www.w3.org/2000/svg", ""), -1); urls != nil && !strings.HasSuffix(entry.Name(), ".png") {
			t.Errorf("%s names %v", entry.Name(), urls)
		}
		total += len(body)
		if again, _ := ask(t, address, "GET", "/page/"+entry.Name(), "", nil, "If-None-Match", resp.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s again: %d", entry.Name(), again.StatusCode)
		}
	}
	if total >= 60_000 {
		t.Errorf("the page has %d bytes", total)
	}
	t.Logf("%d bytes in all", total)
}

// TestPageTicket: what the page shows under its other names opens for where it comes
// from, for a minute, and for nobody whose key is gone.
func TestPageTicket(t *testing.T) {
	address := secureSite(t, adminClient)
	_, text := ask(t, address, "GET", "/", adminKey, nil)
	ticket := regexp.MustCompile(`data-ticket="([^"]+)"`).FindStringSubmatch(text)
	if ticket == nil {
		t.Fatal("there is no ticket")
	}
	also := func(ticket string) int {
		resp, _ := ask(t, address, "POST", "/page/also", "", url.Values{"ticket": {ticket}, "address": {"198.51.100.9"}}, "X-Forwarded-For", "203.0.113.77", "Sec-Fetch-Site", "same-site")
		return resp.StatusCode
	}
	for _, bad := range []string{"", "x", ticket[1][1:], ticket[1] + "AAAA", strings.Repeat("A", len(ticket[1])), httpknock.Ticket(adminKey, time.Now().Add(-time.Minute))} {
		if status := also(bad); status != 401 {
			t.Errorf("ticket %q: %d", bad, status)
		}
	}
	if status := also(ticket[1]); status != 200 {
		t.Errorf("the ticket: %d", status)
	}
	grants := apptest.App(t).Running().State().Grants(nil)
	if len(grants) != 1 || grants[0].Prefix.String() != "203.0.113.77/32" {
		t.Errorf("the grants are %v", grants)
	}
}

// TestInvitations: of many who redeem one at once, one gets a key.
func TestInvitations(t *testing.T) {
	address := secureSite(t, adminClient)
	app := apptest.App(t)
	token, _, err := app.Invite("admin", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := app.Invite("nobody", 0); err == nil {
		t.Error("nobody was invited")
	}
	if _, err := knockapp.JoinURL("http://knock.test"); err == nil || !strings.Contains(err.Error(), "must begin with https://") {
		t.Errorf("an invitation to a page without TLS: %v", err)
	}
	if _, _, err := app.Invite("admin", device.MaxLife+1); err == nil {
		t.Error("an invitation for ever")
	}
	var joined atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			body, _ := json.Marshal(map[string]string{"token": string(token.Bytes()), "name": "laptop"})
			req, _ := http.NewRequest("POST", "http://"+address+"/join", bytes.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("X-Forwarded-For", "203.0.113.5")
			req.Header.Set("X-Forwarded-Proto", "https")
			resp, err := from(t, "127.0.0.1").Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode == 200 {
				joined.Add(1)
			} else if resp.StatusCode != 403 {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	all.Wait()
	if joined.Load() != 1 {
		t.Errorf("%d joined", joined.Load())
	}
	if removed, err := app.RemoveDevices(t.Context(), func(device.Device) bool { return true }); err != nil || len(removed) != 1 {
		t.Errorf("removed %v, %v", removed, err)
	}
}

// TestDeviceOfClientsFile: a device of a client in a clients file knocks also after the
// file was read again, but not once it was removed, nor without its client.
func TestDeviceOfClientsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clients.json")
	write := func(ids ...string) {
		t.Helper()
		clients := make([]map[string]any, 0, len(ids))
		for _, id := range ids {
			clients = append(clients, map[string]any{"id": id, "services": []string{"web"}})
		}
		b, _ := json.Marshal(map[string]any{"clients": clients})
		if err := os.WriteFile(path+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("family")
	address := secureSite(t, "clients_file "+path+"\n\t\tdevices_file "+path+".devices")
	app := apptest.App(t)
	join := func() string {
		t.Helper()
		token, _, err := app.Invite("family", 0)
		if err != nil {
			t.Fatal(err)
		}
		_, key, err := app.Redeem(t.Context(), string(token.Bytes()), "phone")
		if err != nil {
			t.Fatal(err)
		}
		return string(key.Bytes())
	}
	knock := func(key string) int {
		t.Helper()
		req, _ := http.NewRequest("POST", "http://"+address+"/knock", nil)
		req.Header.Set("X-Api-Key", key)
		req.Header.Set("X-Forwarded-For", "203.0.113.5")
		resp, err := from(t, "127.0.0.1").Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	key := join()
	if status := knock(key); status != 200 {
		t.Fatalf("the device gets %d", status)
	}
	read := func(id string) {
		t.Helper()
		program.Await(t, id, func() bool { return app.Running().Keyring().Client(id) != nil })
	}
	write("family", "second")
	read("second")
	if status := knock(key); status != 200 {
		t.Errorf("after the file was read again the device gets %d", status)
	}
	if removed, err := app.RemoveDevices(t.Context(), func(device.Device) bool { return true }); err != nil || len(removed) != 1 {
		t.Fatalf("removed %v, %v", removed, err)
	}
	if status := knock(key); status != 401 {
		t.Errorf("the removed device gets %d", status)
	}
	if n := len(app.Running().State().Grants(nil)); n > 0 {
		t.Errorf("%d grants of it stand", n)
	}
	write("family", "third")
	read("third")
	if status := knock(key); status != 401 {
		t.Errorf("after the next reading the removed device gets %d", status)
	}
	another := join()
	write("fourth")
	read("fourth")
	if status := knock(another); status != 401 {
		t.Errorf("the device of a client that is gone gets %d", status)
	}
}

// awaitCertificates waits until Caddy has the certificates of its sites, which it makes
// after it listens.
func awaitCertificates(t *testing.T, caddy *program.Process, address string, names ...string) {
	t.Helper()
	for _, name := range names {
		caddy.Await(t, "the certificate of "+name, func() bool {
			dialer := &net.Dialer{Timeout: enough}
			conn, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{ServerName: name, InsecureSkipVerify: true}) // the test's own CA
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
	}
}

// TestJoin: caddy-knock joins at a real Caddy, knocks with its own key, also after
// the server was killed, and is out when it is revoked.
func TestJoin(t *testing.T) {
	dir, admin, port := t.TempDir(), program.FreeAddress(t), program.FreePort(t)
	text := fmt.Sprintf(`{
	admin %s
	skip_install_trust
	auto_https disable_redirects
	default_bind 127.0.0.1
	knock {
		allow_local
		client laptop {
			services web
		}
		service web tcp/8080
	}
}
https://localhost:%d {
	tls internal
	knock {
		page https://localhost:%[2]d
	}
}
`, admin, port)
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	caddy := program.StartCaddy(t, dir, text, listen)
	awaitCertificates(t, caddy, listen, "localhost")
	invite := program.Run(t, program.Caddy(t), "knock", "invite", "laptop", "--no-qr", "--address", admin)
	link, _, _ := strings.Cut(invite, "\n")
	c := newClient(t)
	root := filepath.Join(dir, "data", "caddy", "pki", "authorities", "local", "root.crt")
	run := func(code int, args ...string) string {
		t.Helper()
		c.env = []string{"SSL_CERT_FILE=" + root}
		return c.run(t, code, args...)
	}
	if out := run(0, "join", link, "--name", "Laptop"); !strings.Contains(out, "a device of laptop") || strings.Contains(out, link) {
		t.Errorf("join: %s", out)
	}
	if out := run(3, "join", link); !strings.Contains(out, "--force") {
		t.Errorf("joining again: %s", out)
	}
	if out := run(5, "join", link, "--force"); !strings.Contains(out, "used already") {
		t.Errorf("joining with a used link: %s", out)
	}
	run(2, "join", "https://localhost/join")
	if out := run(0, "http", "knock", "localhost"); !strings.Contains(out, "127.0.0.1 is in") {
		t.Errorf("knock: %s", out)
	}
	caddy.Kill()
	awaitCertificates(t, program.StartCaddy(t, dir, text, listen), listen, "localhost")
	if out := run(0, "http", "knock", "localhost"); !strings.Contains(out, "127.0.0.1 is in") {
		t.Errorf("knock after a restart: %s", out)
	}
	if out := program.Run(t, program.Caddy(t), "knock", "devices", "--address", admin); !strings.Contains(out, "Laptop") {
		t.Errorf("the devices: %s", out)
	}
	program.Run(t, program.Caddy(t), "knock", "devices", "revoke", "--client", "laptop", "--address", admin)
	if grants := program.Run(t, program.Caddy(t), "knock", "grants", "--address", admin); strings.Contains(grants, "laptop") {
		t.Errorf("the grants: %s", grants)
	}
	run(5, "http", "knock", "localhost")
}
