// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package l4knock_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// TestSecretsShowNowhere lets a built Caddy log all it can, comes to it in many
// ways, and looks for the secret in everything it wrote or answered, but for the
// key file.
func TestSecretsShowNowhere(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "alice.key")
	if err := os.WriteFile(key, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	port, admin := program.FreePort(t), program.FreeAddress(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	p := program.StartCaddy(t, dir, fmt.Sprintf(`{
	admin %s
	debug
	metrics
	knock {
		client alice {
			secret {file.%s}
			services echo
		}
		service echo tcp/%d
	}
	layer4 {
		%s {
			@frame knock
			route @frame {
				knock
				knock_relay %s
			}
			route {
				knock echo {
					admit {
						proxy %s
					}
				}
				proxy %s
			}
		}
	}
}`, admin, key, port, address, apptest.Echo(t, "service\n"), apptest.Echo(t, "service\n"), apptest.Site(t, "cover")), address, admin)

	good := frame(t, port, nil)
	tampered := frame(t, port, nil)
	tampered[len(tampered)-1] ^= 1
	for _, b := range [][]byte{
		good, good, tampered, []byte("GET / HTTP/1.0\r\n\r\n"),
		frame(t, port, func(f *wire.TCPFrame) { f.Time -= 40_000 }),
		frame(t, port, func(f *wire.TCPFrame) { f.WantProof = true }),
	} {
		conn := dial(t, port)
		_, _ = conn.Write(b)
		_ = conn.CloseWrite()
		_, _ = io.ReadAll(conn)
	}
	var seen bytes.Buffer
	for _, path := range []string{"/config/", "/knock/status", "/knock/clients", "/knock/grants", "/knock/health", "/knock/bans", "/metrics", "/debug/vars"} {
		resp, err := http.Get("http://" + admin + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = seen.ReadFrom(resp.Body)
		resp.Body.Close()
	}
	seen.WriteString(program.Run(t, program.Caddy(t), "adapt", "--config", filepath.Join(dir, "Caddyfile")))
	p.Await(t, "the log of it all", func() bool { return strings.Contains(p.Log.String(), "stale") })
	p.Kill()
	seen.WriteString(p.Log.String())
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == key {
			return err
		}
		b, err := os.ReadFile(path)
		seen.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(seen.String(), "granted") || !strings.Contains(seen.String(), "caddy_knock_knocks_total") {
		t.Fatal("there is too little to look at")
	}
	var numbers []string
	for _, b := range []byte(secret) {
		numbers = append(numbers, fmt.Sprint(b))
	}
	for name, form := range map[string]string{
		"text": secret, "hex": hex.EncodeToString([]byte(secret)), "base64": base64.StdEncoding.EncodeToString([]byte(secret))[:20],
		"numbers": strings.Join(numbers, " "), "JSON numbers": strings.Join(numbers, ","),
	} {
		if i := strings.Index(seen.String(), form); i >= 0 {
			t.Errorf("the secret shows as %s: …%s…", name, seen.String()[max(0, i-100):i+len(form)])
		}
	}
}

// TestBanStopsNoValidFrame lets an address fail until it is banned, floods on, and
// comes from there as a client.
func TestBanStopsNoValidFrame(t *testing.T) {
	port := setup(t, "")
	for range 300 {
		tampered := frame(t, port, nil)
		tampered[len(tampered)-1] ^= 1
		conn := dial(t, port)
		_, _ = conn.Write(tampered)
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	gate := apptest.App(t).Running()
	if bans := gate.Bans().List(gate.Now()); len(bans) != 1 || bans[0].Prefix.String() != "127.0.0.1/32" {
		t.Fatalf("bans: %v", bans)
	}
	if got := exchange(t, port, append(frame(t, port, nil), "hello"...)); got != "service\nhello" {
		t.Errorf("a client at a banned address got %q", got)
	}
}
