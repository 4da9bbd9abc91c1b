// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// doorConfig is a configuration with a door that has these options.
func doorConfig(options string, more ...string) string {
	return `{
	knock {
		client alice {
			services ssh
		}
		service ssh tcp/22
		service web tcp/443
		source packet
		store memory
		door d {
			client alice
			` + strings.ReplaceAll(options, "; ", "\n\t\t\t") + `
		}
		` + strings.Join(more, "\n") + `
	}
}
`
}

func validate(t *testing.T, text string) error {
	t.Helper()
	b, err := apptest.Adapt(text)
	if err != nil {
		return err
	}
	var c caddy.Config
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(&c)
}

func TestDoorErrors(t *testing.T) {
	dir := t.TempDir()
	used := filepath.Join(dir, "used")
	if err := os.WriteFile(used, []byte("#7000,8000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for options, want := range map[string]string{
		"service ssh":                                            "it has no sequence",
		"sequence":                                               "takes at least one argument",
		"sequence 7000,8000,9000; service ssh":                   "steps are separated by blanks",
		"sequence tcp/0; service ssh":                            "not a port from 1 to 65535",
		"sequence 65536; service ssh":                            "not a port from 1 to 65535",
		"sequence icmp/8; service ssh":                           "icmp",
		"sequence 1=sin; service ssh":                            "sin",
		"sequence udp/1=syn; service ssh":                        "flags",
		"sequence " + strings.Repeat("7 ", 33) + "; service ssh": "32",
		"sequence 1 2; flags syn,,ack; service ssh":              "flag",
		"sequence 1 2; within 0s; service ssh":                   "positive duration",
		"sequence 1 2; within 25h; service ssh":                  "24h",
		"sequence 1 2; target here; service ssh":                 "not an IP address",
		"sequence 1 2; service mail":                             `no service "mail"`,
		"sequence 1 2; service web":                              "may not reach service web",
		"sequence 1 2; close":                                    "what it closes",
		"sequence 1 2; close; service ssh; start true":           "no commands",
		"sequence 1 2; start":                                    "takes a program",
		"sequence 1 2; start true {knock.adress}":                "unknown placeholder",
		"sequence 1 2; setup true {knock.address}":               "nobody has knocked",
		"sequence 1 2; stop_ipv6":                                "takes a program",
		"sequence 1 2; colour red":                               "unknown option",
		"sequence_file " + dir + "/none; service ssh":            "no such file",
		"sequence_file " + used + "; service ssh":                "no sequence left",
		"sequence_file " + dir + "; service ssh":                 "is a directory",
		"sequence 1; sequence_file " + used:                      "keep one",
	} {
		if err := validate(t, doorConfig(options)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Caddyfile:") {
			t.Errorf("%s: %v", options, err)
		}
	}
	good := doorConfig("sequence tcp/7000 udp/8000=; service ssh")
	for change, want := range map[string]string{
		"":                   "",
		"source packet\n":    "no source sees its packets",
		"client alice\n":     "has no client",
		"\t\t\tservices ssh": "may not reach service ssh",
	} {
		text := strings.Replace(strings.ReplaceAll(good, "8000=", "9000"), change, "", 1)
		if err := validate(t, text); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("without %q: %v", change, err)
		}
	}
	door := "door d {\n\t\t\tclient alice\n\t\t\tsequence 1 2\n\t\t\tservice ssh\n\t\t}"
	if err := validate(t, doorConfig("sequence 3 4; service ssh", door)); err == nil || !strings.Contains(err.Error(), "defined twice") {
		t.Errorf("two doors of one name: %v", err)
	}
	if err := validate(t, doorConfig("sequence 3 4; service ssh", "methods udp")); err == nil || !strings.Contains(err.Error(), "port-sequence is not among") {
		t.Errorf("without the method: %v", err)
	}
	// Identical and self-overlapping sequences are fine, and so is one that closes
	// what another door's commands opened.
	if err := validate(t, doorConfig("sequence 7 7 7 8 7; start true", strings.ReplaceAll(strings.Replace(door, "door d", "door e", 1), "sequence 1 2", "sequence 7 7 7 8 7"),
		strings.NewReplacer("door d", "door f", "service ssh", "service door:d\n\t\t\tclose").Replace(door))); err != nil {
		t.Error(err)
	}
}

func TestDoorIsTheSameInJSON(t *testing.T) {
	b, err := apptest.Adapt(doorConfig("sequence tcp/1 udp/2; sequence 3=syn; flags syn !ack; within 10s; idle 2s; strict; target 192.0.2.1; service ssh; open_for 1h; " +
		"start a b {knock.address}; start c; stop d; start_ipv6 off; stop_ipv6 e; setup f; teardown g"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Apps struct {
			Knock struct{ Doors []json.RawMessage }
		}
	}
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	want := `{"name":"d","client":"alice","sequence":["tcp/1","udp/2","3=syn"],"flags":"syn,!ack","within":10000000000,"idle":2000000000,"strict":true,` +
		`"targets":["192.0.2.1"],"services":["ssh"],"open_for":3600000000000,"start":[["a","b","{knock.address}"],["c"]],"stop":[["d"]],` +
		`"start_ipv6":[],"stop_ipv6":[["e"]],"setup":[["f"]],"teardown":[["g"]],"at":"Caddyfile:10"}`
	if got := string(c.Apps.Knock.Doors[0]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
