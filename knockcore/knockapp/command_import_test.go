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
	_ "github.com/mholt/caddy-l4"

	_ "github.com/caddy-knock/caddy-knock/firewallmod"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	_ "github.com/caddy-knock/caddy-knock/l4knock"
)

// TestImportedLoads lets Caddy adapt and check what importers write.
func TestImportedLoads(t *testing.T) {
	files, err := filepath.Glob("../importer/testdata/*/*.out")
	if err != nil {
		t.Fatal(err)
	}
	loaded := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if strings.Contains(file, "/knocker/") { // loaded in httpknock, whose modules it names
			continue
		}
		if strings.HasPrefix(text, "error:") || !strings.Contains(text, "\nknock") && !strings.Contains(text, "\tknock {") {
			continue
		}
		loaded++
		text = strings.ReplaceAll(text, "testdata/once", "../importer/testdata/once")
		cfg, err := apptest.Adapt(text)
		if err != nil {
			t.Errorf("%s: %v\n%s", file, err, text)
			continue
		}
		var c caddy.Config
		if err := json.Unmarshal(cfg, &c); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Validate(&c); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	if loaded < 10 {
		t.Errorf("only %d configurations were loaded", loaded)
	}
}
