// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	_ "github.com/caddy-knock/caddy-knock/httpknock"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// TestRequireSession: a session that no knock could bring fails at load.
func TestRequireSession(t *testing.T) {
	const alice = "client alice {\n secret \"a secret of alice, long enough\"\n services s\n%s\n}\n"
	for name, c := range map[string]struct{ lines, want string }{
		"no source":          {fmt.Sprintf(alice, ""), "Caddyfile:9: service s: require_session asks for a knock with a session before the frame, and no source takes such knocks (udp, udp-seq, udp-passive, udp-passive-seq); add a source, for example `source udp :62201`"},
		"other source":       {fmt.Sprintf(alice, "") + "source udp 127.0.0.1:0 {\n methods fwknop\n}\n", "expect"},
		"fwknop alone":       {fmt.Sprintf(alice, "") + "source udp 127.0.0.1:62999 {\n methods fwknop pyknock\n}\n", "and no source takes such knocks"},
		"method off":         {fmt.Sprintf(alice, "") + "methods fwknop tcp-auth-envelope-v2\nsource udp 127.0.0.1:62999\n", "and no source takes such knocks"},
		"client without":     {"client phone {\n fwknop \"an encryption key\" \"and an HMAC key too\"\n services s\n}\nsource udp 127.0.0.1:62999\n", "none of its clients (phone) may send one; give one of them a `secret`, and one of the methods udp, udp-seq"},
		"client's methods":   {fmt.Sprintf(alice, "methods tcp-auth-envelope-v2") + "source udp 127.0.0.1:62999\n", "none of its clients (alice)"},
		"nobody":             {"source udp 127.0.0.1:62999\n", ""},
		"as it should be":    {fmt.Sprintf(alice, "") + "source udp 127.0.0.1:62999 {\n methods udp\n}\n", ""},
		"one client of them": {fmt.Sprintf(alice, "") + "client bob {\n services s\n}\nsource udp 127.0.0.1:62999\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := apptest.TryLoad(t, "{\n\tadmin off\n\tknock {\n"+c.lines+"service s tcp/1 {\n require_session\n}\nstore memory\n\t}\n}\n")
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// site is a web site, to stand after the global options.
func site(t *testing.T, lines string) string {
	return fmt.Sprintf("---http://127.0.0.1:%d {\n%s\n}\n", program.FreePort(t), lines)
}

// TestUnguarded: what nothing guards is warned about at each load, and nothing
// else.
func TestUnguarded(t *testing.T) {
	const frame = "layer4 {\n127.0.0.1:%d {\nroute {\nknock%s {\nadmit {\necho\n}\n}\n}\n}\n}\n"
	const knocked = "layer4 {\n127.0.0.1:%d {\n@in knocked%s\nroute @in {\necho\n}\n}\n}\n"
	for name, c := range map[string]struct {
		service, config string // more of them, within the global options and after
		want            []string
	}{
		"nothing":                {"", "", []string{"nothing guards this service"}},
		"a frame":                {"", fmt.Sprintf(frame, program.FreePort(t), " s"), nil},
		"a frame for any":        {"", fmt.Sprintf(frame, program.FreePort(t), ""), nil},
		"a frame for another":    {"", fmt.Sprintf(frame, program.FreePort(t), " other"), []string{"nothing guards this service"}},
		"knocked":                {"", fmt.Sprintf(knocked, program.FreePort(t), " s"), nil},
		"knocked by any":         {"", fmt.Sprintf(knocked, program.FreePort(t), ""), nil},
		"knocked by HTTP":        {"", site(t, "@in knocked s\nrespond @in hello"), nil},
		"asked by a proxy":       {"", site(t, "knock {\nservices s\n}"), nil},
		"HTTP knocks alone":      {"", site(t, "knock"), []string{"nothing guards this service"}},
		"a session and no frame": {"require_session", fmt.Sprintf(knocked, program.FreePort(t), " s"), []string{"nothing takes the frame"}},
		"a session and a frame":  {"require_session", fmt.Sprintf(frame, program.FreePort(t), " s"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			options, sites, _ := strings.Cut(c.config, "---")
			text := logged(t, options+"knock {\nservice s tcp/1 {\n"+c.service+
				"\n}\nservice other tcp/2 {\n}\nsource udp 127.0.0.1:62999\nstore memory\n}\n", sites)
			got := linesWith(text, `"level":"warn"`, `"service":"s"`)
			if len(got) != len(c.want) {
				t.Fatalf("warnings %q, want %q", got, c.want)
			}
			for i, want := range c.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("got %s, want %s", got[i], want)
				}
			}
		})
	}
}

// logged is what a Caddy with these global options and sites logs from its start to
// its end.
func logged(t *testing.T, options, sites string) string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	apptest.Load(t, "{\nadmin off\nlog {\noutput file "+log+"\n}\n"+options+"}\n"+sites)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// linesWith are the lines in which all of these words stand.
func linesWith(text string, words ...string) (lines []string) {
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestShut: a service whose firewall no knock could open is warned about, with its
// place, and no other.
func TestShut(t *testing.T) {
	const (
		frame = "layer4 {\n127.0.0.1:%d {\nroute {\nknock s {\nadmit {\necho\n}\n}\n}\n}\n}\n"
		shut  = "no knock can open this service, which stays closed by firewall exec"
	)
	for name, c := range map[string]struct {
		knock, config string // more of the app, and of the configuration
		want          []string
	}{
		"nothing":               {"", "", []string{shut, `"at":"Caddyfile:`, "add for example `source udp :62201`"}},
		"a frame alone":         {"", fmt.Sprintf(frame, program.FreePort(t)), []string{shut, "or leave `firewall exec` out: the frame guards it"}},
		"a page for another":    {"", site(t, "knock other"), []string{shut}},
		"a matcher alone":       {"", site(t, "@in knocked s\nrespond @in hello"), []string{shut}},
		"a datagram":            {"source udp 127.0.0.1:62999\n", "", nil},
		"HTTP":                  {"", site(t, "knock s"), nil},
		"HTTP for all":          {"", site(t, "knock"), nil},
		"others of the fleet":   {"store storage {\nreplay memory\n}\n", "", nil},
		"by no firewall at all": {"service t tcp/3 {\nfirewall none\n}\nfirewall none\n", site(t, "knock s"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			options, sites, _ := strings.Cut(c.config, "---")
			store := "store memory\n"
			if strings.Contains(c.knock, "store ") {
				store = ""
			}
			text := logged(t, "storage file_system "+t.TempDir()+"\n"+options+"knock {\n"+c.knock+
				"client alice {\nsecret \"a secret of alice for this test\"\nservices all\n}\nservice s tcp/1 {\nfirewall exec\n}\nservice other tcp/2\n"+
				"firewall exec {\nopen /bin/true\nclose /bin/true\n}\n"+store+"}\n", sites)
			got := linesWith(text, "no knock can open")
			if len(got) != min(len(c.want), 1) {
				t.Fatalf("warnings %q, want %q", got, c.want)
			}
			for _, want := range c.want {
				if !strings.Contains(got[0], want) {
					t.Errorf("got %s, want %s", got[0], want)
				}
			}
		})
	}
}

// TestKnockPorts: a firewall that would close the port of a socket that hears knocks
// is refused, and nothing else. It is provisioned only.
func TestKnockPorts(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for name, c := range map[string]struct{ ports, firewall, source, want string }{
		"the port":          {"tcp/22 udp/62201", "nftables", "udp :62201", "Caddyfile:4: service ssh: source :62201 hears knocks at udp/62201, which firewall nftables would close as one of its ports (udp/62201): leave that port out of the service, or name another one"},
		"the default":       {"udp/62201", "iptables", "udp", "source :62201 hears knocks at udp/62201, which firewall iptables"},
		"a range":           {"tcp/22 udp/60000-65000", "nftables", "udp 192.0.2.1:62201", "source 192.0.2.1:62201 hears knocks at udp/62201, which firewall nftables would close as one of its ports (udp/60000-65000)"},
		"another port":      {"tcp/22 udp/62202", "nftables", "udp :62201", ""},
		"TCP":               {"tcp/62201", "nftables", "udp :62201", ""},
		"this host's own":   {"udp/62201", "nftables", "udp 127.0.0.1:62201", ""},
		"a passive source":  {"udp/62201", "nftables", "nflog {\nports udp/62201\n}", ""},
		"no firewall":       {"udp/62201", "", "udp :62201", ""},
		"none":              {"udp/62201", "none", "udp :62201", ""},
		"one interface":     {"udp/62201", "nftables {\ninterfaces eth0\n}", "udp :62201", ""},
		"a set of somebody": {"udp/62201", "nftables {\nset inet filter allowed\n}", "udp :62201", ""},
	} {
		t.Run(name, func(t *testing.T) {
			named, _, _ := strings.Cut(c.firewall, " ")
			option, module := "", ""
			if c.firewall != "" {
				option, module = "firewall "+named+"\n", "firewall "+c.firewall+"\n"
			}
			text, err := apptest.Adapt("{\nadmin off\nknock {\nservice ssh " + c.ports + " {\n" + option + "}\n" + module + "source " + c.source + "\nstore memory\n}\n}\n")
			if err != nil {
				t.Fatal(err)
			}
			var cfg caddy.Config
			if err := json.Unmarshal(text, &cfg); err != nil {
				t.Fatal(err)
			}
			err = caddy.Validate(&cfg)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// onlyWarnings fails the test if the log does not have each of the warnings as often as
// it is wanted.
func onlyWarnings(t *testing.T, text string, wanted []string, warnings ...string) {
	t.Helper()
	for _, warning := range warnings {
		if got, want := strings.Count(text, warning), strings.Count(strings.Join(wanted, "\n"), warning); got != want {
			t.Errorf("%d times %q, not %d:\n%s", got, warning, want, text)
		}
	}
}

// TestHelpless: clients that can't knock, or for nothing, and a `knock` that leads
// nowhere are warned about, and nothing else.
func TestHelpless(t *testing.T) {
	const (
		keyless = "nobody can knock as these clients"
		idle    = "these clients may reach nothing"
		nowhere = "knock has no `admit`"
		secret  = "secret \"a secret of alice for this test\"\n"
		layer4  = "layer4 {\n127.0.0.1:%d {\n%s\n}\n}\n"
	)
	for name, c := range map[string]struct {
		client, config string
		want           []string
	}{
		"as it should be":      {secret + "services s", "", nil},
		"nothing":              {"", "", []string{keyless, idle}},
		"no key":               {"services s", "", []string{keyless}},
		"no service":           {secret, "", []string{idle}},
		"all services":         {secret + "services all", "", nil},
		"an API key":           {"api_key 0123456789abcdef01\nservices s", "", nil},
		"a fwknop pair":        {"fwknop \"an encryption key\" \"and an HMAC key too\"\nservices s", "", nil},
		"invited":              {"services s", site(t, "knock s {\npage\n}"), nil},
		"a page of none":       {"services s", site(t, "knock s"), []string{keyless}},
		"admit":                {secret + "services s", fmt.Sprintf(layer4, program.FreePort(t), "route {\nknock {\nadmit {\necho\n}\n}\n}"), nil},
		"no admit":             {secret + "services s", fmt.Sprintf(layer4, program.FreePort(t), "route {\nknock\necho\n}"), []string{nowhere}},
		"no admit, as matched": {secret + "services s", fmt.Sprintf(layer4, program.FreePort(t), "@frame knock\nroute @frame {\nknock\necho\n}"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			options, sites, _ := strings.Cut(c.config, "---")
			text := logged(t, options+"knock {\nclient alice {\n"+c.client+"\n}\nservice s tcp/1\nstore memory\n}\n", sites)
			onlyWarnings(t, text, c.want, keyless, idle, nowhere)
		})
	}
}

// TestUnreachable: services that no client may reach, and clients with the same
// secret, which is not shown, are warned about, and nothing else.
func TestUnreachable(t *testing.T) {
	const (
		nobodys = "no client may reach these services"
		same    = "two clients have the same secret"
		secret  = "secret \"a secret of both for this test\"\n"
		another = "secret \"a secret of one for this test\"\n"
	)
	for name, c := range map[string]struct {
		knock string
		want  []string
	}{
		"as it should be": {"client alice {\n" + secret + "services s t\n}\nclient bob {\n" + another + "services s\n}\n", nil},
		"all services":    {"client alice {\n" + secret + "services all\n}\n", nil},
		"nobody at all":   {"", []string{nobodys, `"services":["s","t"]`}},
		"not one of two":  {"client alice {\n" + secret + "services s\n}\n", []string{nobodys, `"services":["t"]`}},
		"the same secret": {"client alice {\n" + secret + "services all\n}\nclient bob {\n" + another + secret + "services s\n}\n", []string{same, `"clients":["alice","bob"]`}},
	} {
		t.Run(name, func(t *testing.T) {
			text := logged(t, "knock {\n"+c.knock+"service s tcp/1\nservice t tcp/2\nstore memory\n}\n", "")
			onlyWarnings(t, text, c.want, nobodys, same)
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("no %s in\n%s", want, text)
				}
			}
			if strings.Contains(text, "for this test") {
				t.Errorf("a secret is shown:\n%s", text)
			}
		})
	}
}
