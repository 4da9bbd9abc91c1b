// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the expected results anew")

// importText is what the command prints, with the error behind it.
func importText(dialect string, b []byte, o Options) string {
	var text string
	var err error
	var profiles []Profile
	switch dialect {
	case "knockd":
		text, err = Knockd(b, o)
	case "knock-rs":
		text, err = KnockRS(b, o)
	case "fwknop":
		text, err = Fwknop(b, o)
	case "pyknock":
		text, err = Pyknock(strings.Split(strings.TrimSpace(string(b)), "\n"), o)
	case "knocker":
		text, err = Knocker(b, nil, o, time.Now())
	case "knock-proxy":
		text, err = KnockProxy(b, o)
	case "knock-proxy-client":
		profiles, err = KnockProxyClient(b, o)
	case "knock-rs-client":
		profiles, err = KnockRSClient(b, o)
	case "fwknoprc":
		profiles, err = FwknopRC(b, o)
	}
	if err != nil {
		return "error: " + strings.ReplaceAll(err.Error(), "\n", "\nerror: ") + "\n"
	}
	for _, p := range profiles {
		b, err := p.Text()
		if err != nil {
			return err.Error()
		}
		text += fmt.Sprintf("%s %q\n%s", p.Name, p.Notes, b)
	}
	return text
}

// TestImport compares with the results that stand beside the inputs; those of
// servers are also loaded by Caddy, in knockapp's tests.
func TestImport(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.in")
	if err != nil || len(files) < 18 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimPrefix(file, "testdata/"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dialect := filepath.Base(filepath.Dir(file))
			o := Options{File: filepath.Base(file)}
			if strings.Contains(file, "sets") || strings.Contains(file, "script") {
				o.Ports = []string{"tcp/22"}
			}
			got := importText(dialect, b, o)
			if strings.Contains(file, "errors") != strings.HasPrefix(got, "error:") && filepath.Base(file) != "mixed.in" {
				t.Errorf("got %s", got)
			}
			path := strings.TrimSuffix(file, ".in") + ".out"
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("Got\n%s\nwant (go test -update)\n%s", got, want)
			}
		})
	}
	if IsKnockProxyClient([]byte("mode: server")) || !IsKnockProxyClient([]byte("mode: client")) {
		t.Error("knock-proxy's files are confused")
	}
	if _, err := Knockd(make([]byte, MaxInput+1), Options{}); err == nil {
		t.Error("a huge file was read")
	}
}

func TestSplitShell(t *testing.T) {
	for _, row := range []struct {
		text  string
		words []string
		shell bool
	}{
		{`a  b	c`, []string{"a", "b", "c"}, false},
		{`a 'b c' "d \"e\" \x" f\ g ""`, []string{"a", "b c", `d "e" \x`, "f g", ""}, false},
		{`a; b`, nil, true},
		{`a $X`, nil, true},
		{`a "$X"`, nil, true},
		{`a '$X'`, []string{"a", "$X"}, false},
		{`X=1 a`, nil, true},
		{`a b=1 c#d`, []string{"a", "b=1", "c#d"}, false},
		{`a #c`, nil, true},
		{`a > b`, nil, true},
		{`cd /x`, nil, true},
		{"a `b`", nil, true},
	} {
		words, shell, err := splitShell(row.text)
		if err != nil || shell != row.shell || !shell && !slices.Equal(words, row.words) {
			t.Errorf("%s: %q, %v, %v", row.text, words, shell, err)
		}
	}
	for _, text := range []string{`a 'b`, `a "b`, `a \`} {
		if _, _, err := splitShell(text); err == nil {
			t.Errorf("%s was split", text)
		}
	}
}

// fuzz feeds an importer: it must not panic, and what it writes has balanced
// braces and no line that ends in the middle.
func fuzz(f *testing.F, dialect string) {
	files, _ := filepath.Glob("testdata/" + dialect + "/*.in")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := importText(dialect, b, Options{File: "f", Ports: []string{"tcp/22"}}); got == "" {
			t.Error("neither a result nor an error")
		}
	})
}

func FuzzKnockd(f *testing.F)           { fuzz(f, "knockd") }
func FuzzKnockRS(f *testing.F)          { fuzz(f, "knock-rs") }
func FuzzKnockRSClient(f *testing.F)    { fuzz(f, "knock-rs-client") }
func FuzzFwknop(f *testing.F)           { fuzz(f, "fwknop") }
func FuzzFwknopRC(f *testing.F)         { fuzz(f, "fwknoprc") }
func FuzzPyknock(f *testing.F)          { fuzz(f, "pyknock") }
func FuzzKnocker(f *testing.F)          { fuzz(f, "knocker") }
func FuzzKnockProxy(f *testing.F)       { fuzz(f, "knock-proxy") }
func FuzzKnockProxyClient(f *testing.F) { fuzz(f, "knock-proxy-client") }

// TestKnockerWhitelist: what is still in is let in again by commands.
func TestKnockerWhitelist(t *testing.T) {
	config, err := os.ReadFile("testdata/knocker/full.in")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	list := `{"203.0.113.7": 1800003600, "10.1.2.0/24": "1800000060", "2001:db8::/64": 1800000030.5, "192.0.2.1": 1799999999}`
	text, err := Knocker(config, []byte(list), Options{}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"client knocker-whitelist {", "web 203.0.113.7/32 --for 1h0m0s", "web 10.1.2.0/24 --for 1m0s", "web 2001:db8::/64 --for 30s"} {
		if !strings.Contains(text, want) {
			t.Errorf("without %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "192.0.2.1/32") {
		t.Error("what has ended is let in")
	}
	for _, bad := range []string{`[]`, `{"x": 1}`, `{"203.0.113.7": "soon"}`, `{"203.0.113.7": 1e300}`, ``} {
		if _, err := Knocker(config, []byte(bad), Options{}, now); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}
