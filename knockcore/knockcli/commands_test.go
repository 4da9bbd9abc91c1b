// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockcli"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

var secretPattern = regexp.MustCompile(`base64:[A-Za-z0-9+/]{43}=`)

func TestKeygen(t *testing.T) {
	profiles := ownProfiles(t)
	got := runIn(t, "", "keygen", "--client", "alice", "--server", "ssh.example.org:2222", "--services", "ssh,web")
	got.want(t, knockcli.ExitOK)
	want := `# Server: into the global options of the Caddyfile. Better: put the text behind
# the word secret into a file of its own that only Caddy may read, and write
#     secret {file./etc/caddy/knock/alice.key}
knock {
	client alice {
		secret SECRET
		services ssh web
	}
}

# Client: save as caddy-knock/profiles/alice.json in your configuration directory
# (~/.config on Linux), and chmod 600 it.
{
	"client": "alice",
	"secret": "SECRET",
	"server": "ssh.example.org",
	"port": 2222,
	"server_proof": true
}
`
	secrets := secretPattern.FindAllString(got.stdout, -1)
	if text := secretPattern.ReplaceAllString(got.stdout, "SECRET"); text != want {
		t.Errorf("Got\n%s\nwant\n%s", text, want)
	}
	if len(secrets) != 2 || secrets[0] != secrets[1] {
		t.Fatalf("Got %d secrets, want the same twice", len(secrets))
	}
	secret, err := knockcore.ParseSecret(secrets[0])
	if err != nil || secret.Len() != 32 {
		t.Errorf("Got a secret of %d bytes, %v; want 32", secret.Len(), err)
	}
	// What it prints for the client is a profile.
	if err := os.MkdirAll(profiles.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, file, _ := strings.Cut(got.stdout, "chmod 600 it.\n")
	if err := os.WriteFile(profiles.Path("alice"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := profiles.Load("alice"); err != nil || !p.Secret.Equal(secret) {
		t.Errorf("Got %v, want the profile", err)
	}
}

func TestKeygenSave(t *testing.T) {
	profiles := ownProfiles(t)
	args := []string{"keygen", "--client", "alice", "--server", "ssh.example.org", "--save"}
	got := runIn(t, "", args...)
	got.want(t, knockcli.ExitOK)
	p, err := profiles.Load("alice")
	if err != nil || p.Server != "ssh.example.org" || !p.ServerProof {
		t.Fatalf("Got %+v, %v", p, err)
	}
	if !strings.Contains(got.stdout, "\t\tsecret "+knockclient.SecretText(p.Secret)+"\n") ||
		!strings.HasSuffix(got.stdout, "# Client: saved as "+profiles.Path("alice")+"\n") {
		t.Errorf("Got\n%s", got.stdout)
	}
	runIn(t, "", args...).want(t, knockcli.ExitConfig, "file exists", "Give --force to replace it", "profile add alice@HOST")
	runIn(t, "", append(args, "--force")...).want(t, knockcli.ExitOK)
	if again, err := profiles.Load("alice"); err != nil || again.Secret.Equal(p.Secret) {
		t.Errorf("Got the old secret or %v", err)
	}
}

func TestKeygenJSON(t *testing.T) {
	ownProfiles(t)
	ids := make(map[string]bool)
	for range 2 {
		got := runIn(t, "", "keygen", "--json")
		got.want(t, knockcli.ExitOK)
		var v struct {
			Client, Secret, Caddyfile string
			Profile                   struct{ Client, Secret string }
		}
		if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || strings.Count(got.stdout, "\n") != 1 {
			t.Fatalf("Got %s, %v; want one line of JSON", got.stdout, err)
		}
		if !strings.HasPrefix(v.Client, "client-") || v.Profile.Client != v.Client || v.Profile.Secret != v.Secret ||
			!secretPattern.MatchString(v.Secret) || !strings.Contains(v.Caddyfile, "\tclient "+v.Client+" {\n\t\tsecret "+v.Secret+"\n") {
			t.Errorf("Got %s", got.stdout)
		}
		ids[v.Client], ids[v.Secret] = true, true
	}
	if len(ids) != 4 {
		t.Errorf("Got the same ID or secret twice")
	}
}

func TestProfileCommands(t *testing.T) {
	profiles := ownProfiles(t)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(secretText), 0o600); err != nil {
		t.Fatal(err)
	}
	runIn(t, "", "profile", "list").want(t, 0, "There are no profiles in "+profiles.Dir)
	if got := runIn(t, "", "profile", "list", "--json"); got.stdout != "[]\n" {
		t.Errorf("Got %q, want an empty list", got.stdout)
	}

	runIn(t, secretText+"\n", "profile", "add", "alice@ssh.example.org").want(t, 0, "Saved as "+profiles.Path("alice@ssh.example.org"))
	runIn(t, secretText, "profile", "add", "bob", "--secret-stdin", "--client", "robert", "--server", "[2001:db8::1]:22", "--method", "tcp-auth-frame-v1",
		"--port", "2222", "--server-proof", "--timeout", "5s").want(t, 0)
	runIn(t, "", "profile", "add", "carol", "--secret-file", key, "--hint", "none").want(t, 0)
	runIn(t, "", "profile", "add", "carol", "--secret-file", key).want(t, 3, "Give --force to replace it.")
	runIn(t, "", "profile", "add", "carol", "--secret-file", key, "--hint", "none", "--force").want(t, 0)
	runIn(t, "", "profile", "add", "erin", "--secret-file", key, "--server-proof=false").want(t, 0)
	if erin, err := profiles.Load("erin"); err != nil || erin.ServerProof {
		t.Errorf("Got %+v, %v", erin, err)
	}
	runIn(t, "", "profile", "remove", "erin").want(t, 0)
	runIn(t, "hunter2\n", "profile", "add", "dave").want(t, 3, "has 7 bytes")
	runIn(t, "", "profile", "add", "dave").want(t, 3, "has 0 bytes")
	runIn(t, "", "profile", "add", "dave", "--secret-stdin").want(t, 3, "--secret-stdin is empty")

	want := knockclient.Profile{
		Client: "robert", Server: "2001:db8::1", Port: 22, ProtectedPort: 2222, Method: knockcore.MethodFrameV1, ServerProof: true, Timeout: 5e9,
	}
	bob, err := profiles.Load("bob")
	if err != nil || !bob.Secret.Equal(testSecret) {
		t.Fatal(err)
	}
	bob.Secret = knockcore.Secret{}
	if !reflect.DeepEqual(*bob, want) {
		t.Errorf("Got %+v, want %+v", *bob, want)
	}
	if carol, err := profiles.Load("carol"); err != nil || carol.SecretFile != key || !carol.HintNone || !carol.ServerProof {
		t.Errorf("Got %+v, %v", carol, err)
	}

	if err := os.WriteFile(profiles.Path("broken"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	list := runIn(t, "", "profile", "list")
	list.want(t, 0)
	wantList := []string{"NAME", "alice@ssh.example.org  alice   ssh.example.org", "bob                    robert  [2001:db8::1]:22", "broken                 -       -", "carol                  carol   -"}
	for i, line := range strings.Split(strings.TrimSpace(list.stdout), "\n") {
		if i >= len(wantList) || !strings.HasPrefix(line, wantList[i]) {
			t.Errorf("Line %d is %q, want %q", i, line, wantList[min(i, len(wantList)-1)])
		}
	}
	show := runIn(t, "", "profile", "show", "bob")
	show.want(t, 0, profiles.Path("bob"))
	if !strings.Contains(show.stdout, `"secret": "[secret]"`) || !strings.Contains(show.stdout, `"client": "robert"`) {
		t.Errorf("Got %s", show.stdout)
	}
	if got := runIn(t, "", "profile", "show", "carol"); strings.Contains(got.stdout, "[secret]") || !strings.Contains(got.stdout, `"secret_file"`) {
		t.Errorf("Got %s", got.stdout)
	}
	for _, command := range []string{"list", "list --json", "show alice@ssh.example.org", "show bob", "show carol"} {
		got := runIn(t, "", append([]string{"profile"}, strings.Fields(command)...)...)
		if strings.Contains(got.stdout+got.stderr, "c29tZXRo") {
			t.Errorf("profile %s tells the secret: %s%s", command, got.stdout, got.stderr)
		}
	}

	complete := func(args ...string) string { return runIn(t, "", append([]string{"__complete"}, args...)...).stdout }
	if got := complete("connect", ""); !strings.HasPrefix(got, "alice@ssh.example.org\nrobert@[2001:db8::1]:22\n:4\n") {
		t.Errorf("Completion offers %q", got)
	}
	if got := complete("profile", "show", ""); !strings.HasPrefix(got, "alice@ssh.example.org\nbob\nbroken\ncarol\n") {
		t.Errorf("Completion offers %q", got)
	}

	runIn(t, "", "profile", "remove", "alice@ssh.example.org", "bob", "zoe").want(t, 3, "removing profile zoe")
	runIn(t, "", "profile", "rm", "broken", "carol").want(t, 0)
	if names, err := profiles.Names(); len(names) != 0 || err != nil {
		t.Errorf("Got %v, %v; want none left", names, err)
	}
}

func TestSSHConfig(t *testing.T) {
	profiles := ownProfiles(t)
	// As if it were installed.
	bin := t.TempDir()
	name := "caddy-knock"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	if err := os.WriteFile(filepath.Join(bin, name), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	saveProfile(t, profiles, "alice", knockclient.Profile{Server: "ssh.example.org", Port: 2222})
	tests := []struct{ args, want, warning string }{
		{"alice@ssh.example.org", "Host ssh.example.org\n\tPort 2222\n\tProxyCommand caddy-knock connect alice@%h %p\n", ""},
		{"ssh.example.org", "Host ssh.example.org\n\tPort 2222\n\tProxyCommand caddy-knock connect %h %p\n", ""},
		{"alice@ssh.example.org:443", "Host ssh.example.org\n\tPort 443\n\tProxyCommand caddy-knock connect alice@%h %p\n", ""},
		{"alice@ssh.example.org ssh", "Host ssh.example.org\n\tPort 22\n\tProxyCommand caddy-knock connect alice@%h %p\n", ""},
		{"--alias home --user root alice@ssh.example.org", "Host home\n\tHostName ssh.example.org\n\tPort 2222\n\tUser root\n\tProxyCommand caddy-knock connect alice@%h %p\n", ""},
		{"alice@other.example", "Host other.example\n\tProxyCommand caddy-knock connect alice@%h %p\n", "for server ssh.example.org, not for other.example"},
		{"zoe@[2001:db8::1]:22", "Host 2001:db8::1\n\tPort 22\n\tProxyCommand caddy-knock connect zoe@%h %p\n", "there is no profile for this yet"},
	}
	for _, test := range tests {
		got := runIn(t, "", append([]string{"ssh-config"}, strings.Fields(test.args)...)...)
		got.want(t, 0, test.warning)
		if got.stdout != test.want || test.warning == "" && got.stderr != "" {
			t.Errorf("ssh-config %s: got\n%s%swant\n%s", test.args, got.stdout, got.stderr, test.want)
		}
	}
	got := runIn(t, "", "ssh-config", "it's100%@h")
	if want := `connect 'it'\''s100%%@%h' %p`; !strings.Contains(got.stdout, want) {
		t.Errorf("Got %s, want %s", got.stdout, want)
	}
	t.Setenv("PATH", t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got := runIn(t, "", "ssh-config", "alice@ssh.example.org"); !strings.Contains(got.stdout, "ProxyCommand "+self+" connect") && runtime.GOOS != "windows" {
		t.Errorf("Got %s, want the path of a program that is not installed", got.stdout)
	}
}

func TestManAndVersion(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1767225600")
	dir := filepath.Join(t.TempDir(), "man", "man1")
	runIn(t, "", "man", dir).want(t, 0)
	for _, name := range []string{"caddy-knock", "caddy-knock-connect", "caddy-knock-profile-add"} {
		b, err := os.ReadFile(filepath.Join(dir, name+".1"))
		if err != nil || !strings.Contains(string(b), ".SH SYNOPSIS") || strings.Contains(string(b), "{cmd}") || !strings.Contains(string(b), `"Jan 2026"`) {
			t.Errorf("Page %s is %.200s, %v", name, b, err)
		}
	}
	if mandoc, err := exec.LookPath("man"); err == nil {
		if out, err := exec.Command(mandoc, "-l", filepath.Join(dir, "caddy-knock-connect.1")).CombinedOutput(); err != nil {
			t.Errorf("man can't read it: %v\n%s", err, out)
		}
	}
	if got := runIn(t, "", "version"); !strings.HasPrefix(got.stdout, "caddy-knock ") {
		t.Errorf("Got %q", got.stdout)
	}
	var v struct{ Version, Go, OS, Arch string }
	got := runIn(t, "", "version", "--json")
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || v.Version == "" || v.Go != runtime.Version() || v.OS != runtime.GOOS || v.Arch != runtime.GOARCH {
		t.Errorf("Got %s, %v", got.stdout, err)
	}
}
