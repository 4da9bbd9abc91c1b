// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	_ "embed"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

//go:embed Caddyfile
var caddyfile string

func TestMain(m *testing.M) { program.Main(m) }

// TestAlerts has promtool check the rules, and try them with invented series.
func TestAlerts(t *testing.T) {
	promtool := program.Need(t, "promtool")
	program.Run(t, promtool, "check", "rules", "alerts.yml")
	program.Run(t, promtool, "check", "config", "prometheus.yml")
	program.Run(t, promtool, "test", "rules", "alerts_test.yml")
}

var metricName = regexp.MustCompile(`caddy_knock_[a-z_]+`)

// TestNames holds the metrics that alerts and dashboard ask for to those that the
// READMEs document, which are those that exist (TestMetricNames).
func TestNames(t *testing.T) {
	documented := make(map[string]bool)
	for _, path := range []string{"../../knockcore/knockapp/README.md", "../../l4knock/README.md", "../../httpknock/README.md", "../../firewallmod/README.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range metricName.FindAllString(string(text), -1) {
			documented[name] = true
		}
	}
	for _, file := range []string{"alerts.yml", "dashboard.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := metricName.FindAllString(string(text), -1)
		if len(names) < 5 {
			t.Errorf("%s asks for %v only", file, names)
		}
		for _, name := range names {
			if !documented[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("%s asks for %s, which does not exist", file, name)
			}
		}
	}
	text, _ := os.ReadFile("dashboard.json")
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, p := range board.Panels {
		if seen[p.Title] || len(p.Targets) == 0 {
			t.Errorf("panel %q", p.Title)
		}
		seen[p.Title] = true
	}
}

// TestMonitoring runs the example: a client knocks, and Prometheus, the watcher, the
// audit log and a command tell of it.
func TestMonitoring(t *testing.T) {
	prometheus := program.Need(t, "prometheus")
	dir := t.TempDir()
	const secret = "the secret of alice, long enough"
	key := filepath.Join(dir, "alice.key")
	if err := os.WriteFile(key, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	audit, told := filepath.Join(dir, "audit.log"), filepath.Join(dir, "told")
	admin, metrics, ssh := program.FreeAddress(t), program.FreeAddress(t), program.FreeAddress(t)
	udp := program.FreeAddress(t)
	caddy := program.StartCaddy(t, dir, "{\n\tadmin "+admin+"\n"+strings.NewReplacer(
		"{$KNOCK_LOG:/var/log/caddy/knock.log}", audit,
		"\tknock {\n", "\tknock {\n\t\tallow_local\n", // all of this is on loopback
		"/etc/caddy/knock/alice.key", key,
		"logger -t knock \"{event.data.client}", "touch \""+told+" {event.data.client}",
		"tcp/2222", "tcp/"+port(ssh), "udp :62201", "udp "+udp, "127.0.0.1:9180", metrics,
	).Replace(strings.TrimPrefix(caddyfile, "{\n")), metrics)

	caddy.Await(t, "the app", func() bool { return strings.Contains(get("http://"+admin+"/knock/health"), "true") })
	watch := program.Start(t, exec.Command(program.Caddy(t), "knock", "watch", "--address", admin))
	awaitReader(t, caddy, admin)

	client := exec.Command(program.Client(t), "send", "--secret-file", key, "--knock-port", port(udp), "alice@127.0.0.1", port(ssh))
	if out, err := client.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	caddy.Await(t, "the watcher", func() bool {
		return strings.Contains(watch.Log.String(), "granted  alice to ssh for 127.0.0.1/32 by udp until")
	})
	caddy.Await(t, "the command", func() bool {
		_, err := os.Stat(told + " alice came in from 127.0.0.1 to ssh")
		return err == nil
	})
	caddy.Await(t, "the audit log", func() bool {
		text, _ := os.ReadFile(audit)
		return strings.Contains(string(text), `"logger":"knock.audit","msg":"granted"`)
	})
	if top := program.Run(t, program.Caddy(t), "knock", "top", "--rounds", "1", "--address", admin); !regexp.MustCompile(`udp +ok +1`).MatchString(top) {
		t.Errorf("top:\n%s", top)
	}

	// Prometheus, with the example's files but for the address and the time.
	for _, name := range []string{"prometheus.yml", "alerts.yml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.NewReplacer("127.0.0.1:9180", metrics, "15s", "1s").Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	web := program.FreeAddress(t)
	scraper := program.Start(t, exec.Command(prometheus, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "tsdb"), "--web.listen-address="+web))
	query := func(expr, want string) {
		t.Helper()
		scraper.Await(t, expr, func() bool {
			return strings.Contains(get("http://"+web+"/api/v1/query?query="+url.QueryEscape(expr)), want)
		})
	}
	query(`caddy_knock_knocks_total{method="udp",reason="ok"}`, `"1"]`)
	query(`caddy_knock_healthy`, `"1"]`)
	query(`caddy_knock_admission_seconds_count{method="udp"}`, `"1"]`)
	if rules := get("http://" + web + "/api/v1/rules"); !strings.Contains(rules, "KnockUnhealthy") || strings.Contains(rules, `"state":"firing"`) {
		t.Errorf("rules: %s", rules)
	}
}

// awaitReader waits until somebody follows the events: before that, what happens
// would be the past for him.
func awaitReader(t *testing.T, caddy *program.Process, admin string) {
	t.Helper()
	caddy.Await(t, "a reader of the stream", func() bool {
		return regexp.MustCompile(`"events_readers":[1-9]`).MatchString(get("http://" + admin + "/knock/status"))
	})
}

func get(url string) string {
	resp, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return string(text)
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}
