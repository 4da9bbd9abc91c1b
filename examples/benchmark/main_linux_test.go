// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

func TestMain(m *testing.M) { program.Main(m) }

// TestParts runs each part for a moment: that they work, not how fast.
func TestParts(t *testing.T) {
	netlab.Need(t)
	for _, name := range []string{"nft", "iptables", "knockd", "knock", "fwknopd", "fwknop", "iperf3", "sysctl", "haproxy", "nginx", "redis-server"} {
		program.Need(t, name)
	}
	dir := t.TempDir()
	o := options{
		rounds: 1, scale: 0.001, caddy: program.Caddy(t), client: program.Client(t),
		markdown: filepath.Join(dir, "table.md"), json: filepath.Join(dir, "all.json"),
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			o := o
			o.only = []string{p.name}
			if err := run(t.Context(), o, io.Discard); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(o.json)
			if err != nil {
				t.Fatal(err)
			}
			var r report
			if err := json.Unmarshal(text, &r); err != nil {
				t.Fatal(err)
			}
			if len(r.Notes) > 0 {
				t.Error("something was left out:", r.Notes)
			}
			for _, l := range r.Lines {
				if l.Part != p.name || len(l.Values) == 0 {
					t.Errorf("%+v", l)
				}
			}
			table, err := os.ReadFile(o.markdown)
			if err != nil {
				t.Fatal(err)
			}
			if rows := strings.Count(string(table), "\n| "+p.name); rows == 0 || rows != len(r.Lines) {
				t.Errorf("%d rows for %d lines:\n%s", rows, len(r.Lines), table)
			}
		})
	}
}

func TestUnknownPart(t *testing.T) {
	if err := run(t.Context(), options{only: []string{"nothing"}}, io.Discard); err == nil {
		t.Error("a part that there is not was run")
	}
}

// TestReport compares numbers that are known.
func TestReport(t *testing.T) {
	r := report{part: "part", out: io.Discard}
	known := func(values ...[]float64) func(context.Context) ([]float64, error) {
		return func(context.Context) ([]float64, error) {
			v := values[0]
			values = values[1:]
			return v, nil
		}
	}
	err := r.compare(
		t.Context(), 3, "what", []quantity{{name: "speed", unit: "/s"}, {name: "cost", unit: "s", less: true}},
		subject{"ours", map[int]float64{0: 2000}, known([]float64{1000, 2}, []float64{3000, 2}, []float64{2000, 2})},
		subject{"theirs", map[int]float64{0: 2, 1: 0.5}, known([]float64{1000, 2}, []float64{1000, 3}, []float64{1000, 4})},
		subject{"limit", nil, known([]float64{4000, none}, []float64{4000, none}, []float64{4000, none})},
		subject{"absent", nil, func(context.Context) ([]float64, error) { return nil, errMissing }},
	)
	if err != nil {
		t.Fatal(err)
	}
	want := `| part | what: speed | ours | 2,000 /s | 1,000 – 3,000 |  | ≥ 2,000 | yes |
| part | what: speed | theirs | 1,000 /s | 1,000 – 1,000 | 2 | ≥ 2 | yes |
| part | what: speed | limit | 4,000 /s | 4,000 – 4,000 | 0.5 |  |  |
| part | what: cost | ours | 2 s | 2 – 2 |  |  |  |
| part | what: cost | theirs | 3 s | 2 – 4 | 0.667 | ≤ 0.5 | **no** |
`
	var got strings.Builder
	for _, l := range r.Lines {
		got.WriteString(l.String() + "\n")
	}
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
	if len(r.Notes) != 1 {
		t.Errorf("notes: %q", r.Notes)
	}
	file := filepath.Join(t.TempDir(), "README.md")
	for _, text := range []string{"", "before\n" + placeBegin + "the former table\n" + placeEnd + "after\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.write(options{markdown: file}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), want) || strings.Contains(string(b), "former") || strings.Contains(text, "before") &&
			(!strings.HasPrefix(string(b), "before\n"+placeBegin) || !strings.HasSuffix(string(b), placeEnd+"after\n")) {
			t.Errorf("%q became:\n%s", text, b)
		}
	}
}
