// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package caddyknock

import (
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/mholt/caddy-l4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// everything is a configuration with all modules that have metrics.
const everything = `{
	admin off
	log {
		level ERROR
	}
	knock {
		client alice {
			secret "a secret of alice for this test"
			services ssh
		}
		service ssh tcp/2222 {
			firewall none
		}
		firewall none
		source udp 127.0.0.1:UDP
	}
	layer4 {
		127.0.0.1:TCP {
			route {
				knock ssh {
					admit {
						knock_relay 127.0.0.1:22
					}
				}
			}
		}
	}
}
http://127.0.0.1:HTTP {
	knock
}
`

var descParts = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "(.*)", unit: "", constLabels: \{\}, variableLabels: \{(.*)\}\}$`)

// TestMetricNames loads everything and holds the metrics to Prometheus' rules and
// to the tables of the READMEs.
func TestMetricNames(t *testing.T) {
	port := func() string { return strconv.Itoa(program.FreePort(t)) }
	apptest.Load(t, strings.NewReplacer("UDP", port(), "HTTP", port(), "TCP", port()).Replace(everything))
	ctx := caddy.ActiveContext()
	registry := ctx.GetMetricsRegistry()
	gate := apptest.App(t).Running()
	if g, err := gate.GrantByHand(t.Context(), "alice", "ssh", netip.MustParsePrefix("203.0.113.7/32"), 0); err != nil {
		t.Fatal(err)
	} else if _, err := gate.Revoke(t.Context(), g.ID, "the test"); err != nil {
		t.Fatal(err)
	}
	gate.Refuse(knockcore.MethodUDP, netip.MustParseAddr("203.0.113.8"), knockcore.ReasonStale)

	metrics := make(map[string]string) // labels by name
	descs := make(chan *prometheus.Desc)
	go func() {
		registry.Describe(descs)
		close(descs)
	}()
	for desc := range descs {
		if !strings.Contains(desc.String(), `"caddy_knock_`) {
			continue
		}
		m := descParts.FindStringSubmatch(desc.String())
		if m == nil {
			t.Errorf("%v", desc)
			continue
		}
		if !strings.HasSuffix(m[2], ".") {
			t.Errorf("%s: the help is no sentence: %s", m[1], m[2])
		}
		metrics[m[1]] = strings.ReplaceAll(m[3], ",", ", ")
	}
	documented := documentedMetrics(t)
	for name, labels := range metrics {
		if got, ok := documented[name]; !ok {
			t.Errorf("no README has a row for %s", name)
		} else if got != labels {
			t.Errorf("README: %s has labels %q, not %q", name, labels, got)
		}
	}
	for name := range documented {
		if _, ok := metrics[name]; !ok {
			t.Errorf("a README has a row for %s, which does not exist", name)
		}
	}

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), "caddy_knock_") })
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("promlint: %s: %s", p.Metric, p.Text)
	}
	if len(families) < len(metrics)/2 {
		t.Errorf("only %d of %d metrics have data", len(families), len(metrics))
	}
	t.Logf("%d metrics, %d of them with data: %v", len(metrics), len(families), slices.Sorted(maps.Keys(metrics)))
}

var metricRow = regexp.MustCompile("(?m)^\\| `(caddy_knock_\\w+)` \\| ([^|]*) ?\\|")

// documentedMetrics are the rows of the tables of all READMEs: labels by name.
func documentedMetrics(t *testing.T) map[string]string {
	t.Helper()
	rows := make(map[string]string)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "README.md" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range metricRow.FindAllStringSubmatch(string(text), -1) {
			if _, twice := rows[m[1]]; twice {
				t.Errorf("%s: %s is documented twice", path, m[1])
			}
			rows[m[1]] = strings.TrimSpace(m[2])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
