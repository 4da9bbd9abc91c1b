// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/httpknock"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// client runs caddy-knock with a home of its own.
type client struct {
	program, home string
	env           []string // besides the usual
}

func newClient(t *testing.T) *client { return &client{program: program.Client(t), home: t.TempDir()} }

func (c *client) command(args ...string) *exec.Cmd {
	cmd := exec.Command(c.program, args...)
	cmd.Env = append(c.env, "HOME="+c.home, "XDG_CONFIG_HOME="+c.home, "PATH="+os.Getenv("PATH"))
	return cmd
}

func (c *client) run(t *testing.T, code int, args ...string) string {
	t.Helper()
	out, err := c.command(args...).CombinedOutput()
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != code {
		t.Errorf("caddy-knock %v: exit code %d instead of %d\n%s", args, got, code, out)
	}
	return string(out)
}

func (c *client) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(c.home, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestClient knocks with caddy-knock http, by flags and by an imported profile.
func TestClient(t *testing.T) {
	c := newClient(t)
	hash := c.run(t, 0, "hash-key", "--new", "--json")
	var made struct{ Key, Hash string }
	if err := json.Unmarshal([]byte(hash), &made); err != nil {
		t.Fatalf("%q: %v", hash, err)
	}
	address := site(t, "", "client hashed {\n api_key_hash "+made.Hash+"\n services web\n max_ttl 1m\n allow_remote /24\n}", "")
	key := c.file(t, "key", made.Key+"\n")
	if again := strings.TrimSpace(c.run(t, 0, "hash-key", "--key-file", key)); again != made.Hash {
		t.Errorf("the hash of the same key is %s", again)
	}
	if text := c.run(t, 3, "hash-key", "--key-file", c.file(t, "weak", "0123456789abcdef01")); !strings.Contains(text, "bits") || strings.Contains(text, "0123456789abcdef") {
		t.Errorf("a weak key: %s", text)
	}
	url := "http://" + address
	if text := c.run(t, 0, "http", "knock", url, "--key-file", key); !strings.Contains(text, "127.0.0.1 is in for 1m0s") {
		t.Errorf("knock: %s", text)
	}
	if status, _ := get(t, address, "127.0.0.1", "/verify"); status != http.StatusOK {
		t.Errorf("verify after the knock: %d", status)
	}
	if text := c.run(t, 0, "http", "knock", url+"/knock", "--key-file", key, "--json", "--ttl", "1s", "--address", "203.0.113.0/24"); !strings.Contains(text, `"entry":"203.0.113.0/24"`) || !strings.Contains(text, `"expires_in_seconds":1`) {
		t.Errorf("knock for others: %s", text)
	}
	if text := c.run(t, 5, "http", "knock", url, "--key-file", c.file(t, "wrong", "a key that nobody has")); !strings.Contains(text, "Invalid or missing API key.") {
		t.Errorf("wrong key: %s", text)
	}
	c.run(t, 4, "http", "knock", "http://"+program.FreeAddress(t), "--key-file", key)
	c.run(t, 2, "http", "knock", "ftp://x", "--key-file", key)
	c.run(t, 3, "http", "knock", url)

	// The settings of knocker-cli become a profile.
	c.file(t, ".knocker.yaml", fmt.Sprintf("api_url: %s/\napi_key: %s\nttl: 2\ncheck_interval: 5\nip_check_url: ''\n", url, made.Key))
	c.run(t, 0, "http", "import", "--name", "home")
	if text := c.run(t, 0, "profile", "show", "home"); strings.Contains(text, made.Key) || !strings.Contains(text, url) {
		t.Errorf("the profile: %s", text)
	}
	watch := program.Start(t, c.command("http", "watch", "home", "--json", "--every", "1s"))
	watch.Await(t, "two knocks", func() bool { return strings.Count(watch.Log.String(), `"entry":"127.0.0.1"`) >= 2 })
	watch.Kill()
	// Whoever is not in any more knocks before it is time.
	apptest.Load(t, siteText(address, "", "client hashed {\n api_key_hash "+made.Hash+"\n services web\n}\n", ""))
	c.file(t, ".knocker.yaml", fmt.Sprintf("api_url: %s\napi_key: %s\n", url, made.Key))
	c.run(t, 3, "http", "import", "--name", "home")
	c.run(t, 0, "http", "import", "--name", "home", "--force")
	asked := httpknock.Answers("/verify", http.StatusOK)
	watch = program.Start(t, c.command("http", "watch", "home", "--json", "--every", "1s"))
	watch.Await(t, "a knock and a look", func() bool { return httpknock.Answers("/verify", http.StatusOK) > asked })
	gate := apptest.App(t).Running()
	for _, g := range gate.State().Grants(nil) {
		if _, err := gate.Revoke(t.Context(), g.ID, "test"); err != nil {
			t.Fatal(err)
		}
	}
	watch.Await(t, "another knock", func() bool { return strings.Count(watch.Log.String(), `"expires_in_seconds":30`) >= 2 })
	watch.Kill()

	unit := c.run(t, 0, "http", "watch", "home", "--unit", "--every", "1m")
	if !strings.Contains(unit, "ExecStart="+c.program+" http watch home --every=1m0s\n") {
		t.Errorf("the unit:\n%s", unit)
	}
	c.run(t, 2, "http", "watch", url, "--unit")
}

// TestKeyConfig: keys that must not be are refused at load, and say how to do
// better.
func TestKeyConfig(t *testing.T) {
	hash := knockcore.APIKeyHashText(knockcore.HashAPIKey(adminKey))
	for name, c := range map[string]struct{ clients, handler, want string }{
		"placeholder":     {"client a {\n api_key change_me_0123456789\n}", "", "placeholder"},
		"placeholder 2":   {"client a {\n api_key REPLACE_WITH_a_key_0123\n}", "", "hash-key --new"},
		"short":           {"client a {\n api_key short\n}", "", "at least 16"},
		"not ASCII":       {"client a {\n api_key clé-0123456789abcdef\n}", "", "printable ASCII"},
		"bad hash":        {"client a {\n api_key_hash 0123\n}", "", "caddy-knock hash-key"},
		"twice":           {"client a {\n api_key " + adminKey + "\n api_key_hash " + hash + "\n}", "", "already"},
		"shared":          {"client a {\n api_key " + adminKey + "\n}\nclient b {\n api_key_hash " + hash + "\n}", "", "give each its own"},
		"unknown service": {adminClient, "\n services ssh", "there is no service \"ssh\""},
		"unknown option":  {adminClient, "\n nonsense", "expect services"},
		"excluded dots":   {adminClient, "\n excluded_paths /a/../b", "write it as it appears"},
		"excluded host":   {adminClient, "\n excluded_paths example.com", "name paths"},
		"origin":          {adminClient, "\n cors_origin \"a b\"", "is not an origin"},
		"allowed":         {adminClient, "\n always_allowed 10.0.0.1/8", "did you mean 10.0.0.0/8"},
		"method off":      {"methods udp\n" + adminClient, "", "method http is not among"},
	} {
		t.Run(name, func(t *testing.T) {
			err := apptest.TryLoad(t, siteText("127.0.0.1:1", "", c.clients, c.handler))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "Caddyfile:") && name != "shared" {
				t.Errorf("%v; expected %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), adminKey) {
				t.Errorf("the error shows a key: %v", err)
			}
		})
	}
}
