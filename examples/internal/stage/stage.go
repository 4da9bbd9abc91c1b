// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package stage is what tests of examples share: a client, and its ways in.
package stage

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// Alice is the client of the examples.
type Alice struct {
	// Key is the file with her secret.
	Key string
	// Program is caddy-knock.
	Program string
	secret  knockcore.Secret
}

// NewAlice makes a secret.
func NewAlice(t testing.TB) *Alice {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	a := &Alice{Key: filepath.Join(t.TempDir(), "alice.key"), Program: program.Client(t), secret: knockcore.NewSecret(key)}
	if err := os.WriteFile(a.Key, []byte("base64:"+base64.StdEncoding.EncodeToString(key)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// Flags are how caddy-knock is told who she is.
func (a *Alice) Flags() []string {
	return []string{"--client", "alice", "--secret-file", a.Key, "--server-proof"}
}

// Forward runs `caddy-knock forward` to the target until the test ends, and
// returns the local address.
func (a *Alice) Forward(t testing.TB, target string) string {
	t.Helper()
	p := program.Start(t, exec.Command(a.Program, append([]string{"forward", "--listen", "0", "--json", target}, a.Flags()...)...))
	var line struct{ Listening string }
	p.Await(t, "caddy-knock to listen", func() bool {
		first, _, whole := strings.Cut(p.Log.String(), "\n")
		return whole && json.Unmarshal([]byte(first), &line) == nil && line.Listening != ""
	})
	return line.Listening
}

// Dialer is her way in for Go programs.
func (a *Alice) Dialer() *knockclient.Dialer {
	return &knockclient.Dialer{Config: knockclient.Config{ClientID: "alice", Secret: a.secret, ServerProof: true}}
}

// PortOf is the port of an address.
func PortOf(t testing.TB, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
