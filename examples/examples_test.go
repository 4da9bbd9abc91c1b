// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package examples_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/mholt/caddy-l4"

	_ "github.com/caddy-knock/caddy-knock"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// TestTwins adapts every example and compares it with its JSON twin.
// UPDATE_TWINS=1 writes the twins anew.
func TestTwins(t *testing.T) {
	files, err := filepath.Glob("*/Caddyfile")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples found: %v", err)
	}
	nested, _ := filepath.Glob("*/*/Caddyfile")
	for _, file := range append(files, nested...) {
		t.Run(filepath.Dir(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := apptest.Adapt(string(text))
			if err != nil {
				t.Fatal(err)
			}
			adapted := withoutPlaces(t, cfg)
			twin := filepath.Join(filepath.Dir(file), "caddy.json")
			if os.Getenv("UPDATE_TWINS") == "1" {
				var b bytes.Buffer
				enc := json.NewEncoder(&b)
				enc.SetEscapeHTML(false)
				enc.SetIndent("", "\t")
				if err := enc.Encode(adapted); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(twin, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(twin)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(adapted, withoutPlaces(t, want)) {
				t.Error("the JSON twin differs; run the test with UPDATE_TWINS=1 and look at the difference")
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), "README.md")); err != nil {
				t.Error("there is no README")
			}
		})
	}
}

// withoutPlaces parses a configuration and takes out where things stood in the
// Caddyfile.
func withoutPlaces(t *testing.T, cfg []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(cfg, &v); err != nil {
		t.Fatal(err)
	}
	var strip func(any)
	strip = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if place, ok := v["at"].(string); ok && strings.Contains(place, "Caddyfile:") {
				delete(v, "at")
			}
			for _, child := range v {
				strip(child)
			}
		case []any:
			for _, child := range v {
				strip(child)
			}
		}
	}
	strip(v)
	return v
}

var fence = regexp.MustCompile("(?s)```caddyfile\n(.*?)```")

// TestREADMEs adapts every caddyfile block of every README.
func TestREADMEs(t *testing.T) {
	blocks := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "dist" || d.Name() == "vendor") {
			return filepath.SkipDir
		}
		if d.Name() != "README.md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range fence.FindAllSubmatch(text, -1) {
			blocks++
			// Blocks in list items are indented.
			block := regexp.MustCompile(`(?m)^   `).ReplaceAllString(string(m[1]), "")
			if _, err := apptest.Adapt(block); err != nil {
				t.Errorf("%s: %v\n%s", path, err, block)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if blocks == 0 {
		t.Error("no caddyfile block was found in any README")
	}
}
