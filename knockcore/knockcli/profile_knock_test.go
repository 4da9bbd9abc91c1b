// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient/clienttest"
)

// TestForwardKnocks makes the profile as a user does, and then forwards with it:
// each connection has a knock of its own before it, whose session its frame
// carries.
func TestForwardKnocks(t *testing.T) {
	skipWithoutSignals(t)
	ownProfiles(t)
	server := startServer(t, new(clienttest.Server))
	r := listenUDP(t, "127.0.0.1:0")
	runIn(t, secretText+"\n", "profile", "add", "alice", "--server", server.Addr(), "--server-proof", "--knock", "udp", r.flag()).want(t, 0)
	f := startForward(t, "--listen", "0", "alice@"+server.Addr())
	for i := range 3 {
		if got := ask(t, f.address, "hello"); got != "you said hello" {
			t.Fatalf("Got %q", got)
		}
		d := r.datagram(t, server.Port)
		if frames := server.Frames(); len(frames) != i+1 || !slices.Equal(frames[i].Session, d.Session) || len(d.Session) == 0 {
			t.Errorf("Connection %d: the knock has session %x, the frames %v", i, d.Session, frames)
		}
	}
	f.stop(t)
}

func TestProfileAddKnock(t *testing.T) {
	profiles := ownProfiles(t)
	psk := filepath.Join(t.TempDir(), "psk")
	if err := os.WriteFile(psk, []byte("a pyknock key"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HMAC_ENV", "an HMAC key")
	for i, row := range []struct {
		args, want string
		code       int
	}{
		{"--secret-file KEY --knock udp-seq --parts 4 --knock-host knock.example.org --knock-for tcp/22 --knock-for udp/53 --no-session", `"knock": {
		"method": "udp-seq",
		"host": "knock.example.org",
		"ports": [
			"tcp/22",
			"udp/53"
		],
		"session": false,
		"parts": 4
	}`, 0},
		{"--knock pyknock --knock-secret-file PSK", `"method": "pyknock",
		"frame": false,
		"secret_file": "PSK"`, 0},
		{"--knock fwknop --knock-secret-file PSK --hmac-secret-env HMAC_ENV --hmac sha512 --user carol --open-for 90s --knock-for 22", `"hmac_secret": "[secret]",
		"hmac": "sha512",
		"user": "carol",
		"open_for": "1m30s"`, 0},
		{"--knock udp --no-frame --secret-file KEY", `"frame": false`, 0},
		{"--knock tcp-auth-envelope-v2", "no method of knocking by datagram", 2},
		{"--knock-port 7", "--knock-port goes with --knock METHOD", 2},
		{"--knock pyknock", "pyknock needs its pre-shared key", 3},
		{"--knock fwknop --knock-secret-file PSK", "HMAC", 3},
		{"--knock udp-seq --parts 9 --secret-file KEY", "parts", 3},
		{"--knock udp --knock-for ssh/22 --secret-file KEY", "is not a port to knock for", 2},
	} {
		key := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(key, []byte(secretText), 0o600); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint("p", i)
		args := strings.Fields(strings.NewReplacer("KEY ", key+" ", "PSK", psk).Replace(row.args + " "))
		got := runIn(t, "", append([]string{"profile", "add", name}, args...)...)
		if row.code != 0 {
			got.want(t, row.code, row.want)
			continue
		}
		got.want(t, 0, "Saved as "+profiles.Path(name))
		show := runIn(t, "", "profile", "show", name)
		if want := strings.ReplaceAll(row.want, "PSK", psk); !strings.Contains(show.stdout, want) {
			t.Errorf("%s: got %s, want %s", row.args, show.stdout, want)
		}
		if strings.Contains(show.stdout, "an HMAC key") || strings.Contains(show.stdout, "a pyknock key") {
			t.Errorf("%s: a secret is shown", row.args)
		}
	}
}
