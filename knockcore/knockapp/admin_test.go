// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// adminTest is a Caddy with an admin endpoint.
type adminTest struct {
	*testing.T
	address string
}

func startAdmin(t *testing.T, lines string) *adminTest {
	t.Helper()
	a := &adminTest{t, fmt.Sprintf("127.0.0.1:%d", program.FreePort(t))}
	apptest.Load(t, a.caddyfile(lines))
	return a
}

func (a *adminTest) caddyfile(lines string) string {
	return "{\n\tadmin " + a.address + "\n\tpersist_config off\n\tmetrics\n\tlog {\n\t\tlevel ERROR\n\t}\n\tknock {\n" + lines + "\n\t}\n}\n"
}

// call makes a request and returns status and body.
func (a *adminTest) call(method, path, body string) (int, string) {
	a.Helper()
	req, err := http.NewRequestWithContext(a.Context(), method, "http://"+a.address+path, strings.NewReader(body))
	if err != nil {
		a.Fatal(err)
	}
	client := http.Client{Transport: program.Persistent(http.DefaultTransport)}
	resp, err := client.Do(req)
	if err != nil {
		a.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		a.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (a *adminTest) get(path string, into any) {
	a.Helper()
	status, body := a.call(http.MethodGet, path, "")
	if status != http.StatusOK {
		a.Fatalf("%s: %d %s", path, status, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		a.Fatalf("%s: %v in %s", path, err, body)
	}
}

const adminClients = `
	client alice {
		secret "a secret of alice that must not show"
		services ssh web
	}
	client bob {
		secret "another secret that must not show"
		services all
		ttl 1h
	}
	service ssh tcp/22
	service web tcp/443`

type grantPage struct {
	Grants []struct{ ID, Client, Service, Prefix string }
	Next   string
}

func TestAdminGrants(t *testing.T) {
	a := startAdmin(t, adminClients)
	for i, order := range []string{
		`{"client":"alice","service":"ssh","address":"203.0.113.7","ttl":"10m"}`,
		`{"client":"alice","service":"web","address":"203.0.113.7","ttl":600000000000}`,
		`{"client":"bob","service":"ssh","address":"2001:db8:1:2::/64"}`,
		`{"client":"bob","service":"web","address":"::ffff:203.0.113.8"}`,
	} {
		if status, body := a.call(http.MethodPost, "/knock/grants", order); status != http.StatusOK {
			t.Fatalf("grant %d: %d %s", i, status, body)
		}
	}
	for query, want := range map[string]int{
		"":                              4,
		"?client=alice":                 2,
		"?service=ssh":                  2,
		"?client=alice&service=web":     1,
		"?address=203.0.113.7":          2,
		"?address=203.0.113.0/24":       3,
		"?address=2001:db8:1:2::99":     1,
		"?address=::ffff:203.0.113.8":   1,
		"?client=nobody":                0,
		"?method=tcp-auth-envelope-v2":  0,
		"?client=alice&service=nothing": 0,
	} {
		var page grantPage
		if a.get("/knock/grants"+query, &page); len(page.Grants) != want {
			t.Errorf("%q: %d grants, not %d", query, len(page.Grants), want)
		}
	}
	// Pages: each grant once, in the order of IDs.
	seen, last, next := 0, "", ""
	for {
		var page grantPage
		a.get("/knock/grants?limit=3&after="+next, &page)
		for _, g := range page.Grants {
			if g.ID <= last {
				t.Errorf("%s after %s", g.ID, last)
			}
			last = g.ID
			seen++
		}
		if next = page.Next; next == "" {
			break
		}
	}
	if seen != 4 {
		t.Errorf("%d grants on all pages", seen)
	}
	if status, body := a.call(http.MethodDelete, "/knock/grants?client=bob", ""); status != http.StatusOK || !strings.Contains(body, `"revoked":2`) {
		t.Errorf("revoking: %d %s", status, body)
	}
	for selection, want := range map[string]int{"client=bob": 200, "client=bbo": 404, "service=shs": 404} {
		status, body := a.call(http.MethodDelete, "/knock/grants?"+selection, "")
		if status != want || (status == http.StatusNotFound) != strings.Contains(body, "0 revoked; there is no ") {
			t.Errorf("revoking nothing, %s: %d %s", selection, status, body)
		}
	}
	if status, body := a.call(http.MethodDelete, "/knock/grants?all=true", ""); status != http.StatusOK || !strings.Contains(body, `"revoked":2`) {
		t.Errorf("revoking all: %d %s", status, body)
	}
}

func TestAdminNonsense(t *testing.T) {
	a := startAdmin(t, adminClients)
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{http.MethodPut, "/knock/grants", "", 405},
		{http.MethodPost, "/knock/status", "", 405},
		{http.MethodGet, "/knock/grants?limit=0", "", 400},
		{http.MethodGet, "/knock/grants?limit=10001", "", 400},
		{http.MethodGet, "/knock/grants?limit=x", "", 400},
		{http.MethodGet, "/knock/grants?after=xyz", "", 400},
		{http.MethodGet, "/knock/grants?address=nowhere", "", 400},
		{http.MethodGet, "/knock/grants?colour=red", "", 400},
		{http.MethodGet, "/knock/grants?method=smoke", "", 400},
		{http.MethodGet, "/knock/nothing", "", 404},
		{http.MethodDelete, "/knock/grants", "", 400},
		{http.MethodDelete, "/knock/grants?id=zz", "", 400},
		{http.MethodDelete, "/knock/bans?prefix=", "", 400},
		{http.MethodPost, "/knock/grants", "", 400},
		{http.MethodPost, "/knock/grants", "[]", 400},
		{http.MethodPost, "/knock/grants", `{"client":"alice","service":"ssh","address":"203.0.113.7","colour":"red"}`, 400},
		{http.MethodPost, "/knock/grants", `{"client":"nobody","service":"ssh","address":"203.0.113.7"}`, 400},
		{http.MethodPost, "/knock/grants", `{"client":"alice","service":"ftp","address":"203.0.113.7"}`, 400},
		{http.MethodPost, "/knock/grants", `{"client":"alice","service":"ssh","address":"0.0.0.0"}`, 400},
		{http.MethodPost, "/knock/grants", `{"client":"alice","service":"ssh","address":"127.0.0.1"}`, 400},
		{http.MethodPost, "/knock/grants", `{"client":"alice","service":"ssh","address":"203.0.113.7","ttl":-5}`, 400},
		{http.MethodPost, "/knock/grants", `{"client":"alice","service":"ssh","address":"::ffff:0:0/90"}`, 400},
		{http.MethodPost, "/knock/grants", strings.Repeat("{", 100_000), 400},
	} {
		if status, body := a.call(c.method, c.path, c.body); status != c.want {
			t.Errorf("%s %s %.60s: %d %s, want %d", c.method, c.path, c.body, status, body, c.want)
		}
	}
	if n := apptest.App(t).Running().State().Len(); n != 0 {
		t.Errorf("%d grants were made", n)
	}
}

func TestAdminTellsNoSecrets(t *testing.T) {
	a := startAdmin(t, adminClients)
	for _, path := range []string{"/knock/clients", "/knock/status", "/knock/health", "/knock/grants", "/knock/bans", "/metrics"} {
		status, body := a.call(http.MethodGet, path, "")
		if status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if strings.Contains(body, "must not show") {
			t.Errorf("%s tells a secret: %s", path, body)
		}
	}
}

func TestAdminAfterFailedReload(t *testing.T) {
	a := startAdmin(t, adminClients)
	if status, body := a.call(http.MethodPost, "/knock/grants", `{"client":"alice","service":"ssh","address":"203.0.113.7","ttl":"10m"}`); status != http.StatusOK {
		t.Fatal(status, body)
	}
	cfg, err := apptest.Adapt(a.caddyfile(strings.ReplaceAll(adminClients, "bob", "carol")))
	if err != nil {
		t.Fatal(err)
	}
	cfg = []byte(strings.Replace(string(cfg), `"apps":{`, `"apps":{"failing":{"starting":true},`, 1))
	for range 5 {
		if err := caddy.Load(cfg, true); err == nil {
			t.Fatal("the failing configuration was loaded")
		}
		var clients struct{ Clients []struct{ ID string } }
		if a.get("/knock/clients", &clients); len(clients.Clients) != 2 || clients.Clients[1].ID != "bob" {
			t.Fatalf("clients %v", clients)
		}
		var page grantPage
		if a.get("/knock/grants", &page); len(page.Grants) != 1 {
			t.Fatalf("%d grants", len(page.Grants))
		}
	}
}

func TestClientsFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "clients.json")
	content := func(ids ...string) string {
		var clients []string
		for _, id := range ids {
			clients = append(clients, fmt.Sprintf(`{"id": %q, "secrets": ["the secret of %s, long enough"], "services": ["ssh"]}`, id, id))
		}
		return `{"clients": [` + strings.Join(clients, ",\n") + `]}`
	}
	replace := func(text string) { // as careful editors do
		t.Helper()
		tmp := path + ".new"
		if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, path); err != nil {
			t.Fatal(err)
		}
	}
	replace(content("carol", "dave"))
	a := startAdmin(t, adminClients+"\n\tclients_file "+path)
	gate := apptest.App(t).Running()
	has := func(id string) bool { return gate.Keyring().Client(id) != nil }
	if !has("alice") || !has("carol") || !has("dave") {
		t.Fatal("clients are missing")
	}
	healthy := func() bool { status, _ := a.call(http.MethodGet, "/knock/health", ""); return status == http.StatusOK }
	if !healthy() {
		t.Fatal("not healthy at first")
	}
	for _, id := range []string{"carol", "dave"} {
		if _, err := gate.GrantByHand(t.Context(), id, "ssh", netip.MustParsePrefix("203.0.113.9/32"), 0); err != nil {
			t.Fatal(err)
		}
	}
	cut := make(chan struct{})
	defer gate.State().Track(&knockcore.Grant{ID: knockcore.NewGrantID(), Client: "carol", Service: "ssh", Scope: knockcore.ScopeConnection}, netip.AddrPort{}, func() { close(cut) })()

	replace(content("dave", "erin"))
	apptest.Await(t, "carol to be gone and erin to be there", func() bool { return !has("carol") && has("erin") && has("alice") })
	<-cut
	if grants := gate.State().Grants(func(g *knockcore.Grant) bool { return g.Client == "carol" }); len(grants) > 0 {
		t.Error("carol's grants stand")
	}
	if grants := gate.State().Grants(func(g *knockcore.Grant) bool { return g.Client == "dave" }); len(grants) != 1 {
		t.Error("dave's grant is gone")
	}
	for name, bad := range map[string]string{
		"cut off":         `{"clients": [`,
		"unknown member":  `{"clients": [], "colour": "red"}`,
		"short secret":    `{"clients": [{"id": "x", "secrets": ["short"]}]}`,
		"unknown service": `{"clients": [{"id": "x", "services": ["ftp"]}]}`,
		"ID of another":   content("alice"),
		"two objects":     content() + content(),
		"null":            `{"clients": [null]}`,
	} {
		replace(bad)
		apptest.Await(t, "bad health by a file with "+name, func() bool { return !healthy() })
		if !has("dave") || !has("erin") {
			t.Errorf("%s: clients were lost", name)
		}
		replace(content("dave", "erin"))
		apptest.Await(t, "good health after "+name, healthy)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	apptest.Await(t, "bad health without the file", func() bool { return !healthy() })
	if !has("erin") {
		t.Error("clients were lost with the file")
	}
	// A symbolic link that is swapped.
	for _, id := range []string{"frank", "grace"} {
		target := filepath.Join(dir, id+".json")
		if err := os.WriteFile(target, []byte(content(id)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path+".link"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".link", path); err != nil {
			t.Fatal(err)
		}
		apptest.Await(t, id, func() bool { return has(id) })
	}
	if has("frank") || has("erin") || !healthy() {
		t.Error("the swap was not followed")
	}
	// Rewritten in place, same size.
	if err := os.WriteFile(path, []byte(content("heidi")), 0o600); err != nil {
		t.Fatal(err)
	}
	apptest.Await(t, "heidi", func() bool { return has("heidi") })
}
