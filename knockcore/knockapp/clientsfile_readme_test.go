// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestREADMEClientsFile: the clients file that the README shows can be used.
func TestREADMEClientsFile(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(readme), "\n### Clients file\n\n```json\n")
	example, _, found := strings.Cut(after, "```")
	if !found {
		t.Fatal("the README shows no clients file")
	}
	dir := t.TempDir()
	key, path := filepath.Join(dir, "bob.key"), filepath.Join(dir, "clients.json")
	for name, content := range map[string]string{key: "base64:AAECAwQFBgcICQoLDA0ODw==\n", path: strings.ReplaceAll(example, "/etc/caddy/knock/bob.key", filepath.ToSlash(key))} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CAROL_API_KEY", "0123456789abcdef")
	a := &App{ClientsFile: path, Services: []*Service{{Name: "ssh"}, {Name: "web"}}}
	clients, _, err := (&clientsFile{path: path}).read(a)
	if err != nil {
		t.Fatal(err)
	}
	if len(clients) != 2 || len(clients[1].APIKeyHashes) != 1 {
		t.Errorf("%d clients", len(clients))
	}
}
