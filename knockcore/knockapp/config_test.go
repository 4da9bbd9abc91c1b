// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// TestConfigErrors loads Caddyfiles that must be refused, with a message that
// names file and line and says what to write instead.
func TestConfigErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for p := dir; p != os.TempDir() && p != filepath.Dir(p); p = filepath.Dir(p) {
		_ = os.Chmod(p, 0o755) // traversable, or the file could not be read by others
	}
	readable := write("readable.key", "a secret that all may read", 0o644)
	short := write("short.key", "short", 0o600)
	empty := write("empty.key", "", 0o600)
	pasted := write("pasted.key", "secret base64:plkK0yZfvpwrT37+FOVsAYvnmehz8GRiASVe24kG654=\n", 0o600)
	t.Setenv("KNOCK_TEST_SHORT", "short")
	t.Setenv("KNOCK_TEST_EMPTY", "")
	for name, c := range map[string]struct{ lines, want string }{
		"short secret":         {"client a {\n secret short\n}", "Caddyfile:5: 16"},
		"bad hex":              {"client a {\n secret hex:xyz\n}", "Caddyfile:5: hexadecimal"},
		"missing variable":     {"client a {\n secret {env.KNOCK_TEST_NOT_SET}\n}", "Caddyfile:4: KNOCK_TEST_NOT_SET is not set"},
		"empty variable":       {"client a {\n secret {env.KNOCK_TEST_EMPTY}\n}", "Caddyfile:4: KNOCK_TEST_EMPTY is empty"},
		"short variable":       {"client a {\n secret {env.KNOCK_TEST_SHORT}\n}", "Caddyfile:4: keygen"},
		"missing file":         {"client a {\n secret {file." + dir + "/none}\n}", "Caddyfile:4: does not exist"},
		"empty file":           {"client a {\n secret {file." + empty + "}\n}", "Caddyfile:4: is empty"},
		"short file":           {"client a {\n secret {file." + short + "}\n}", "Caddyfile:4: keygen"},
		"readable file":        {"client a {\n secret {file." + readable + "}\n}", "Caddyfile:4: chmod 600"},
		"file, no braces":      {"client a {\n secret file./etc/caddy/knock/alice.key\n}", "Caddyfile:5: with braces"},
		"variable, no braces":  {"client a {\n secret env.KNOCK_TEST_SHORT_ONE\n}", "Caddyfile:5: with braces"},
		"file, not closed":     {"client a {\n secret {file./etc/caddy/knock/alice.key\n}", "Caddyfile:4: is not closed"},
		"variable, not closed": {"client a {\n api_key {env.KNOCK_TEST_SHORT_ONE\n}", "Caddyfile:4: is not closed"},
		"a path":               {"client a {\n secret " + filepath.ToSlash(short) + "\n}", "Caddyfile:5: with braces"},
		"api key, no braces":   {"client a {\n api_key file./etc/caddy/knock/phone.key\n}", "Caddyfile:4: with braces"},
		"line pasted":          {"client a {\n secret {file." + pasted + "}\n}", "Caddyfile:4: put base64:… alone"},
		"quoted":               {"client a {\n secret `\"base64:plkK0yZfvpwrT37+FOVsAYvnmehz8GRiASVe24kG654=\"`\n}", "Caddyfile:5: put base64:… alone"},
		"unknown placeholder":  {"client a {\n secret {nonsense}\n}", "Caddyfile:4: nonsense"},
		"duplicate client":     {"client a\nclient a", "Caddyfile:5: first at Caddyfile:4"},
		"duplicate service":    {"service s tcp/1\nservice s tcp/2", "Caddyfile:5: first at Caddyfile:4"},
		"unknown service":      {"client a {\n services web\n}", "Caddyfile:4: define it with `service web tcp/PORT`"},
		"services by commas":   {"client a {\n services ssh,web\n}", "Caddyfile:4: separated by blanks"},
		"methods by commas":    {"client a {\n methods udp,tcp-syn\n}", "Caddyfile:5: separated by blanks"},
		"addresses by commas":  {"client a {\n from 10.0.0.1,10.0.0.2\n}", "Caddyfile:5: separated by blanks"},
		"ports by commas":      {"service s tcp/22,tcp/80", "Caddyfile:4: separated by blanks"},
		"port with a colon":    {"service s tcp:42222", "Caddyfile:4: write tcp/42222"},
		"port first":           {"service s 42222/UDP", "Caddyfile:4: write udp/42222"},
		"{file:}":              {"client a {\n secret {file:/etc/caddy/knock/alice.key}\n}", "Caddyfile:4: write {file./etc/caddy/knock/alice.key}"},
		"{env:}":               {"client a {\n secret {env:KNOCK_TEST_SHORT}\n}", "Caddyfile:4: write {env.KNOCK_TEST_SHORT}"},
		"unset {$}":            {"client a {\n secret {$KNOCK_TEST_NOT_SET}\n}", "Caddyfile:5: {$VARIABLE} that is not set leaves none"},
		"unset {$}, one":       {"client a {\n ttl {$KNOCK_TEST_NOT_SET}\n}", "Caddyfile:5: {$VARIABLE} that is not set leaves none"},
		"misspelt option":      {"client a {\n secert x\n}", "Caddyfile:5: unknown option \"secert\"; did you mean secret? Expect secret, "},
		"misspelt, short":      {"client a {\n tll 5m\n}", "Caddyfile:5: did you mean ttl?"},
		"misspelt store":       {"store memroy", "Caddyfile:4: did you mean memory? Expect file, memory, redis, storage"},
		"minutes apart":        {"client a {\n ttl 5 min\n}", "Caddyfile:5: write ttl 5m"},
		"minutes":              {"client a {\n ttl 5minutes\n}", "Caddyfile:5: write 5m"},
		"two durations":        {"client a {\n ttl 1h 30m\n}", "Caddyfile:5: write ttl 1h30m"},
		"duration and more":    {"client a {\n ttl 5m soon\n}", "Caddyfile:5: a duration such as 30s"},
		"unknown option":       {"nonsense 1", "Caddyfile:4: unknown option \"nonsense\"; expect client"},
		"unknown client opt":   {"client a {\n nonsense\n}", "Caddyfile:5: expect secret"},
		"leftover":             {"client a b", "Caddyfile:4: one argument"},
		"leftover flag":        {"allow_local yes", "Caddyfile:4: no argument"},
		"option twice":         {"time_window 10s\ntime_window 20s", "Caddyfile:5: given before, at line 4"},
		"bad duration":         {"time_window never", "Caddyfile:4: positive duration"},
		"no port":              {"service s", "Caddyfile:4: service ssh tcp/2222"},
		"bad port":             {"service s tcp/0", "Caddyfile:4: not a port from 1 to 65535"},
		"bad protocol":         {"service s icmp/1", "Caddyfile:4: expect tcp or udp"},
		"reversed range":       {"service s tcp/20-10", "Caddyfile:4: ends before it begins"},
		"bad method":           {"methods smoke-signals", "Caddyfile:4: unknown method \"smoke-signals\"; expect one of tcp-auth-frame-v1"},
		"bad prefix":           {"client a {\n from 203.0.113.7/24\n}", "Caddyfile:5: did you mean 203.0.113.0/24?"},
		"bad date":             {"client a {\n expires soon\n}", "Caddyfile:5: 2027-01-31"},
		"all and more":         {"client a {\n services all web\n}", "Caddyfile:5: stands alone"},
		"unknown store":        {"store carrier-pigeon", "Caddyfile:4: no store \"carrier-pigeon\" in this Caddy; expect file, memory, redis, storage"},
		"unknown firewall":     {"service s tcp/1 {\n firewall none\n}", "Caddyfile:4: configure it with `firewall none`"},
		"client with no value": {"client", "Caddyfile:4: one argument"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "readable file" && runtime.GOOS == "windows" {
				t.Skip("modes mean nothing here")
			}
			err := apptest.TryLoad(t, "{\n\tadmin off\n\tknock {\n"+c.lines+"\n\t}\n}\n")
			if err == nil {
				t.Fatal("was loaded")
			}
			place, text, _ := strings.Cut(c.want, ": ")
			if !strings.Contains(err.Error(), place) || !strings.Contains(err.Error(), text) {
				t.Errorf("got  %v\nwant %s … %s", err, place, text)
			}
			if strings.Contains(err.Error(), "a secret that all may read") {
				t.Error("the message tells the secret")
			}
		})
	}
}

func TestSecretsNeverShow(t *testing.T) {
	const secret = "this must never show anywhere"
	dir := t.TempDir()
	path := filepath.Join(dir, "alice.key")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := "{\n\tadmin off\n\tknock {\n\t\tclient alice {\n\t\t\tsecret {file." + path + "}\n\t\t}\n\t}\n}\n"
	cfg, err := apptest.Adapt(text)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(cfg), secret) {
		t.Error("adapt shows the secret")
	}
	apptest.Load(t, text)
	client := apptest.App(t).Running().Keyring().Client("alice")
	if string(client.Secrets[0].Bytes()) != secret {
		t.Error("the file was not read, or not trimmed")
	}
	_ = caddy.Stop()
}
