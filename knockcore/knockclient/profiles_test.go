// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

func newProfiles(tb testing.TB) knockclient.Profiles {
	tb.Helper()
	return knockclient.Profiles{Dir: filepath.Join(tb.TempDir(), "caddy-knock", "profiles")}
}

func save(tb testing.TB, p knockclient.Profiles, name string, profile knockclient.Profile) {
	tb.Helper()
	if err := p.Save(name, &profile, false); err != nil {
		tb.Fatal(err)
	}
}

func TestProfileRoundTrip(t *testing.T) {
	profiles := newProfiles(t)
	want := knockclient.Profile{
		Client: "alice", Secret: testSecret, Server: "ssh.example.org", Port: 2222, ProtectedPort: 22,
		Method: knockcore.MethodFrameV1, ServerProof: true, Timeout: 5 * time.Second, ConnectTimeout: time.Minute,
	}
	save(t, profiles, "alice", want)
	got, err := profiles.Load("alice")
	if err != nil {
		t.Fatal(err)
	}
	if !got.Secret.Equal(want.Secret) {
		t.Error("Got another secret")
	}
	got.Secret, want.Secret = knockcore.Secret{}, knockcore.Secret{}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("Got %+v, want %+v", *got, want)
	}
	if cfg := got.Config(); cfg.ClientID != "alice" || cfg.Port != 22 || cfg.Method != knockcore.MethodFrameV1 ||
		!cfg.ServerProof || cfg.Timeout != 5*time.Second {
		t.Errorf("Got config %+v", cfg)
	}
	if info, err := os.Stat(profiles.Path("alice")); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("Got mode %v, %v; want 0600", info.Mode(), err)
	}
	entries, err := os.ReadDir(profiles.Dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("Got files %v, %v; want the profile and no leftovers", entries, err)
	}
}

func TestProfileNeverShowsSecret(t *testing.T) {
	profile := knockclient.Profile{Client: "alice", Secret: testSecret}
	shown, err := json.Marshal(&profile)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"client":"alice","secret":"[secret]"}`; string(shown) != want {
		t.Errorf("Got %s, want %s", shown, want)
	}
	text := fmt.Sprintf("%v %+v %#v", profile, &profile, profile)
	if strings.Contains(text, "alice's") {
		t.Errorf("Printing tells the secret: %s", text)
	}
}

func TestProfilesSave(t *testing.T) {
	profiles := newProfiles(t)
	save(t, profiles, "alice", knockclient.Profile{Client: "alice", Secret: testSecret})
	second := &knockclient.Profile{Client: "alice2", Secret: testSecret}
	if err := profiles.Save("alice", second, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Saving over another: got %v, want fs.ErrExist", err)
	}
	if p, err := profiles.Load("alice"); err != nil || p.Client != "alice" {
		t.Errorf("Got %+v, %v; want the first", p, err)
	}
	if err := profiles.Save("alice", second, true); err != nil {
		t.Error(err)
	}
	if p, err := profiles.Load("alice"); err != nil || p.Client != "alice2" {
		t.Errorf("Got %+v, %v; want the second", p, err)
	}
	for _, name := range []string{"", "two words", "tab\tbed", strings.Repeat("x", 256)} {
		if err := profiles.Save(name, second, true); err == nil {
			t.Errorf("Saving as %q succeeded", name)
		}
	}
}

func TestProfileNames(t *testing.T) {
	profiles := newProfiles(t)
	if names, err := profiles.Names(); len(names) != 0 || err != nil {
		t.Errorf("Got %v, %v without a folder; want nothing", names, err)
	}
	want := []string{"../../evil", ".hidden", "a%2Fb", "alice", "alice@2001:db8::1", "alice@ssh.example.org", "node.example/7", "клиент-42"}
	for _, name := range want {
		save(t, profiles, name, knockclient.Profile{Client: "alice", Secret: testSecret})
		if filepath.Dir(profiles.Path(name)) != profiles.Dir {
			t.Errorf("Profile %s is at %s, outside of the folder", name, profiles.Path(name))
		}
	}
	for _, junk := range []string{"notes.txt", ".new-123", "bad%zz.json", ".json"} {
		if err := os.WriteFile(filepath.Join(profiles.Dir, junk), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := profiles.Names(); !slices.Equal(names, want) || err != nil {
		t.Errorf("Got %q, %v; want %q", names, err, want)
	}
	for _, name := range want {
		if err := profiles.Remove(name); err != nil {
			t.Error(err)
		}
	}
	if err := profiles.Remove("alice"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Removing what is gone: got %v, want fs.ErrNotExist", err)
	}
}

func TestProfilesFind(t *testing.T) {
	profiles := newProfiles(t)
	for name, server := range map[string]string{
		"alice": "", "alice@Home.example": "", "bob": "ssh.example.org", "carol": "two.example", "dave": "two.example.",
		"erin": "2001:db8::1",
	} {
		client, _, _ := strings.Cut(name, "@")
		save(t, profiles, name, knockclient.Profile{Client: client, Secret: testSecret, Server: server})
	}
	if err := os.WriteFile(profiles.Path("broken"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ client, host, want, text string }{
		{"alice", "", "alice", ""},
		{"alice", "anywhere.example", "alice", ""},
		{"alice", "Home.example", "alice@Home.example", ""},
		{"bob", "ssh.example.org", "bob", ""},
		{"bob", "SSH.example.org.", "bob", ""},
		{"bob", "", "bob", ""},
		{"bob", "other.example", "bob", "profile bob is for server ssh.example.org, not for other.example"},
		{"broken", "h", "broken", "unexpected end of JSON"},
		{"zoe", "h", "", "there is none named zoe@h or zoe in " + profiles.Dir},
		{"", "ssh.example.org", "bob", ""},
		{"", "[2001:DB8:0::1]", "erin", ""},
		{"", "two.example", "", "several are for two.example: carol, dave; say which client, as in CLIENT@two.example"},
	}
	for _, test := range tests {
		name, profile, err := profiles.Find(test.client, test.host)
		if name != test.want || (err == nil) != (test.text == "") || (profile != nil) != (err == nil) ||
			err != nil && !strings.Contains(err.Error(), test.text) {
			t.Errorf("Find(%q, %q): got %q, %v; want %q, %q", test.client, test.host, name, err, test.want, test.text)
		}
	}
	if _, _, err := profiles.Find("zoe", "h"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Got %v, want fs.ErrNotExist", err)
	}
	var other *knockclient.OtherServerError
	if _, _, err := profiles.Find("bob", "h"); !errors.As(err, &other) {
		t.Errorf("Got %v, want an OtherServerError", err)
	}
	if err := profiles.Remove("broken"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := profiles.Find("", "nowhere.example"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Got %v, want fs.ErrNotExist", err)
	}
}

func TestProfilesLoadRefuses(t *testing.T) {
	profiles := newProfiles(t)
	if err := os.MkdirAll(profiles.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ text, want string }{
		"unknown key":     {`{"client":"a","secret":"0123456789abcdef","knock_before":true}`, `unknown field "knock_before"`},
		"both":            {`{"client":"a","secret":"0123456789abcdef","secret_file":"x"}`, "keep one"},
		"none":            {`{"client":"a"}`, "has 0 bytes"},
		"short":           {`{"client":"a","secret":"hunter2"}`, "has 7 bytes"},
		"base64":          {`{"client":"a","secret":"base64:hunter2!"}`, "not base64"},
		"secret a number": {`{"client":"a","secret":12345678901234567890}`, "cannot unmarshal number"},
		"no client":       {`{"secret":"0123456789abcdef"}`, "client ID"},
		"hint":            {`{"client":"a","secret":"0123456789abcdef","hint":"no"}`, `unknown hint mode "no"`},
		"method":          {`{"client":"a","secret":"0123456789abcdef","method":"v3"}`, `unknown method "v3"`},
		"wrong method":    {`{"client":"a","secret":"0123456789abcdef","method":"udp"}`, "no method of TCP frames"},
		"timeout":         {`{"client":"a","secret":"0123456789abcdef","timeout":"-3s"}`, "negative"},
		"port":            {`{"client":"a","secret":"0123456789abcdef","port":70000}`, "cannot unmarshal number 70000"},
		"two":             {`{"client":"a","secret":"0123456789abcdef"} {}`, "invalid character"},
		"missing file":    {`{"client":"a","secret_file":"nowhere.key"}`, "nowhere.key does not exist"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(profiles.Path("p"), []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := profiles.Load("p")
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "reading profile p: ") {
				t.Errorf("Got %v, want %q", err, test.want)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || errors.Is(err, fs.ErrNotExist)) {
				t.Errorf("Error %q tells the secret, or means that there is no profile", err)
			}
		})
	}
}

func TestSecretFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes say nothing about access on Windows")
	}
	profiles := newProfiles(t)
	save(t, profiles, "alice", knockclient.Profile{Client: "alice", Secret: testSecret, SecretFile: "alice's key"})
	text, err := os.ReadFile(profiles.Path("alice"))
	if err != nil || strings.Contains(string(text), "base64:") {
		t.Errorf("Got %s, %v; want the name of the file and no secret", text, err)
	}
	key := filepath.Join(profiles.Dir, "alice's key")
	if err := os.WriteFile(key, []byte(knockclient.SecretText(testSecret)+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := profiles.Load("alice"); err != nil || !p.Secret.Equal(testSecret) {
		t.Errorf("Got %v, want the secret of the file", err)
	}
	for _, path := range []string{key, profiles.Path("alice")} {
		for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o644} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			_, err := profiles.Load("alice")
			var modeErr *knockclient.FileModeError
			if !errors.As(err, &modeErr) || modeErr.Path != path || modeErr.Mode.Perm() != mode {
				t.Errorf("Mode %04o of %s: got %v, want a FileModeError", mode, path, err)
			}
			want := fmt.Sprintf("(mode %04o); run: chmod 600 '%s'", mode, strings.ReplaceAll(path, "'", `'\''`))
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("Got %q, want %q", err, want)
			}
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := knockclient.ReadSecretFile(key, true); err != nil || !s.Equal(testSecret) {
		t.Errorf("Got %v with any mode allowed", err)
	}
	for name, content := range map[string]string{"empty": " \n", "hex": "hex:zz", "long": strings.Repeat("x", 64<<10+1)} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := knockclient.ReadSecretFile(path, false); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want an error with the path", name, err)
		}
	}
	if _, err := knockclient.ReadSecretFile(filepath.Join(t.TempDir(), "none"), false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Got %v, want fs.ErrNotExist", err)
	}
}

func TestDefaultProfiles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the configuration directory is chosen by other variables here")
	}
	t.Setenv("XDG_CONFIG_HOME", "/some/where")
	if p, err := knockclient.DefaultProfiles(); err != nil || p.Dir != "/some/where/caddy-knock/profiles" {
		t.Errorf("Got %v, %v", p, err)
	}
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("HOME", "")
	if _, err := knockclient.DefaultProfiles(); err == nil {
		t.Error("Got no error without a home")
	}
}
