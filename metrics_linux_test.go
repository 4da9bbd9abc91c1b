// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package caddyknock

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

func TestMain(m *testing.M) { program.Main(m) }

// everythingReal is a configuration in which every metric gets data.
const everythingReal = `{
	admin 127.0.0.1:2019
	persist_config off
	log {
		level ERROR
	}
	events {
		on knock.granted knock_exec true
	}
	servers :8081 {
		listener_wrappers {
			knocked
		}
	}
	knock {
		client alice {
			secret "a secret of alice for this test"
			api_key "an API key of alice for this test"
			services all
		}
		service ssh tcp/2222 {
			open_for 3s # to get in; then it has to end
			firewall nftables
			on_expire cut
		}
		service web tcp/3333
		source udp :62201
		source nflog {
			methods port-sequence
		}
		door side {
			client alice
			sequence tcp/7000 tcp/7001 tcp/7002
			service ssh
		}
		bans {
			failures 3
		}
		firewall nftables
		store storage {
			replay file
			poll 1s
			node here
		}
	}
	layer4 {
		:3333 {
			route {
				knock web {
					admit {
						knock_relay 127.0.0.1:7
					}
				}
				proxy 127.0.0.1:8080
			}
		}
	}
}
http://:8080 {
	knock
}
http://:8081 {
	respond "inside"
}
`

// labelValues are all that labels may say: names of the configuration, and enums.
func labelValues() map[string][]string {
	methods := []string{""} // by hand
	for _, m := range knockcore.AllMethods.Methods() {
		methods = append(methods, m.String())
	}
	reasons := []string{}
	for r := knockcore.ReasonNone; r.String() != "unknown"; r++ {
		reasons = append(reasons, r.String())
	}
	return map[string][]string{
		"method": methods, "reason": reasons,
		"service": {"ssh", "web"}, "door": {"side"}, "firewall": {"nftables"},
		"source":    {":62201", "nflog 62201"},
		"how":       {"expired", "revoked"},
		"event":     {"stage", "spoiled", "timeout", "opened", "exhausted", "failed", "dropped"},
		"action":    {"open", "close", "heal", "setup", "teardown", "event"},
		"result":    {"ok", "failed"},
		"verdict":   {"opened", "shut"},
		"what":      {"socket", "conntrack", "error"},
		"operation": {"spend", "save", "delete", "take", "order", "verify", "sync", "file"},
		"why":       {"socket_full", "queue_full", "limited", "stopped"},
		"cause":     {"done", "cut", "idle", "down_failed", "up_failed", "dial_failed"},
		"direction": {"up", "down"},
		"wrapper":   {"listener", "packetconn"},
		"endpoint":  {"/", "/knock", "/verify", "/health", "/check-ip"},
		"status":    {"200", "204", "303", "304", "308", "400", "401", "403", "405", "413", "415", "425", "429", "500", "503", "other"},
	}
}

var (
	sample = regexp.MustCompile(`(?m)^(caddy_knock_\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? \S+$`)
	label  = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
)

// TestMetricsOfEverything has a built Caddy give data to every metric that a README
// has, while strangers send it names of their own by all ways. The scrape pleases
// promlint, and no label says anything that came from them.
func TestMetricsOfEverything(t *testing.T) {
	netlab.Need(t, "nft", "conntrack")
	lab := netlab.New(t)
	host, outside := lab.NS("host"), lab.NS("outside")
	lab.Link(host, []string{"192.0.2.1/24"}, outside, []string{"192.0.2.2/24"})
	host.Echo("tcp", "127.0.0.1:7")
	host.Echo("tcp", "0.0.0.0:2222")
	dir := t.TempDir()
	file, key := filepath.Join(dir, "Caddyfile"), filepath.Join(dir, "alice.key")
	for path, text := range map[string]string{file: everythingReal, key: "a secret of alice for this test\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := host.Command(context.Background(), program.Caddy(t), "run", "--config", file)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
	caddy := program.Start(t, cmd)
	request := func(ns *netlab.NS, method, url, key string) (status int, body string) {
		client := http.Client{Transport: program.Persistent(&http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
			return ns.Dial(network, address, 20*time.Second)
		}})}
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.Header.Set("X-Api-Key", key)
		}
		req.Header.Set("User-Agent", "from-the-wire")
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	scrape := func() string { _, body := request(host, "GET", "http://127.0.0.1:2019/metrics", ""); return body }
	// Not before all apps run: the admin API is there, with metrics, before them.
	caddy.Await(t, "the apps", func() bool {
		status, _ := request(host, "GET", "http://127.0.0.1:2019/knock/status", "")
		return status == http.StatusOK
	})

	// Strangers, and what they would like to be called.
	for _, method := range []string{"GET", "POST", "FROM-THE-WIRE"} {
		for _, path := range []string{"/knock", "/verify", "/health", "/from-the-wire", "/%22from-the-wire"} {
			request(outside, method, "http://192.0.2.1:8080"+path+"?from-the-wire", "from-the-wire, long enough")
		}
	}
	for _, network := range []string{"tcp 192.0.2.1:3333", "tcp 192.0.2.1:8081", "udp 192.0.2.1:62201"} {
		network, address, _ := strings.Cut(network, " ")
		conn, err := outside.Dial(network, address, 5*time.Second)
		if err != nil {
			continue // 8081 may reset it that early
		}
		_, _ = io.WriteString(conn, "from-the-wire\nfrom-the-wire\n")
		_ = conn.Close()
	}
	_, _ = outside.Try(program.Client(t), "send", "--secret", "a secret from the wire, long enough", "from-the-wire@192.0.2.1", "2222")
	outside.Probe("tcp", "192.0.2.1:2222")
	// Alice, by several ways.
	outside.Run(program.Client(t), "open", "--method", "udp", "--secret-file", key, "alice@192.0.2.1:2222")
	outside.RunInput("hello\n", program.Client(t), "connect", "--secret-file", key, "alice@192.0.2.1:3333")
	outside.Run(program.Client(t), "send", "--method", "port-sequence", "--delay", "20ms", "192.0.2.1", "7000", "7001", "7002")
	request(outside, "POST", "http://192.0.2.1:8080/knock", "an API key of alice for this test")
	// Somebody else takes the rules away.
	host.Run("nft", "delete", "table", "inet", "caddy_knock")

	documented := documentedMetrics(t)
	var text string
	missing := func() (names []string) {
		text = scrape()
		seen := make(map[string]bool)
		for _, m := range sample.FindAllStringSubmatch(text, -1) {
			seen[m[1]] = true
		}
		for name := range documented {
			if !seen[name] {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	healed := regexp.MustCompile(`caddy_knock_firewall_heals_total\{firewall="nftables"\} [1-9]`)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if names := missing(); len(names) == 0 && healed.MatchString(text) {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("no data of %v", names)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "caddy_knock_") {
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
	allowed, series := labelValues(), 0
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		series++
		var names []string
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			if l[1] == "le" {
				continue
			}
			names = append(names, l[1])
			if !slices.Contains(allowed[l[1]], l[2]) {
				t.Errorf("%s: label %s says %q", m[1], l[1], l[2])
			}
		}
		slices.Sort(names)
		want := strings.FieldsFunc(documented[m[1]], func(r rune) bool { return r == ',' || r == ' ' })
		if slices.Sort(want); !slices.Equal(names, want) {
			t.Errorf("%s has labels %v, not %v", m[1], names, want)
		}
	}
	if i := strings.Index(strings.ToLower(text), "the-wire"); i >= 0 {
		t.Errorf("the wire speaks: %.200s", text[max(0, i-100):])
	}
	t.Logf("%d samples of %d metrics", series, len(documented))
}
