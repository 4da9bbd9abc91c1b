// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// TestWindow knocks by curl at a real Caddy, which opens SSH in nftables.
func TestWindow(t *testing.T) {
	netlab.Need(t, "nft", "curl")
	lab := netlab.New(t)
	host, alice, router := lab.NS("host"), lab.NS("alice"), lab.NS("router")
	lab.Link(host, []string{"192.0.2.1/24", "2001:db8:1::1/64"}, alice, []string{"192.0.2.2/24", "2001:db8:1::2/64"})
	// Behind the router there are others, some in the same /64.
	others := lab.NS("others")
	lab.Link(host, []string{"198.51.100.1/24", "2001:db8:2::1/64"}, router, []string{"198.51.100.2/24", "2001:db8:2::2/64"})
	lab.Link(router, []string{"203.0.113.1/24", "2001:db8:3::1/64"}, others, []string{"203.0.113.2/24", "203.0.113.3/24", "2001:db8:3::2/64", "2001:db8:3::3/64"})
	router.Forward()
	others.DefaultRoute("203.0.113.1", "2001:db8:3::1")
	host.Run("ip", "-4", "route", "add", "203.0.113.0/24", "via", "198.51.100.2")
	host.Run("ip", "-6", "route", "add", "2001:db8:3::/64", "via", "2001:db8:2::2")
	for _, address := range []string{"0.0.0.0:2222", "[::]:2222"} {
		host.Echo("tcp", address)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, fmt.Appendf(nil, `{
	admin off
	persist_config off
	knock {
		client alice {
			api_key %s
			services ssh
			max_ttl 1h
			allow_remote /24 /64
		}
		service ssh tcp/2222 {
			firewall nftables
		}
		firewall nftables
	}
}
http://:8080 {
	knock
}
`, adminKey), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := host.Command(context.Background(), program.Caddy(t), "run", "--config", file)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	caddy := program.Start(t, cmd)
	t.Cleanup(func() { _ = caddy.Process.Signal(os.Interrupt); <-caddy.Ended })
	caddy.Await(t, "the site", func() bool {
		return exec.Command("ip", "netns", "exec", host.Name, "curl", "-fs", "http://127.0.0.1:8080/ready").Run() == nil
	})

	curl := func(from *netlab.NS, args ...string) string {
		out, err := from.Try(append([]string{"curl", "-sS", "-H", "X-Api-Key: " + adminKey}, args...)...)
		if err != nil {
			t.Fatalf("curl: %v\n%s", err, out)
		}
		return out
	}
	open := func(from *netlab.NS, source, target string, want netlab.State) {
		t.Helper()
		timeout := netlab.ProbeTimeout
		if want != netlab.Filtered {
			timeout = enough
		}
		if got, err := from.ProbeFrom("tcp", source, target, timeout); err != nil || got != want {
			t.Errorf("from %s, %s is %s instead of %s (%v)", source, target, got, want, err)
		}
	}
	const host4, host6 = "192.0.2.1:2222", "[2001:db8:1::1]:2222"
	open(alice, "192.0.2.2", host4, netlab.Filtered)
	if answer := curl(alice, "-X", "POST", "http://192.0.2.1:8080/knock"); !strings.Contains(answer, `"whitelisted_entry":"192.0.2.2"`) {
		t.Fatalf("knock: %s", answer)
	}
	open(alice, "192.0.2.2", host4, netlab.Open)
	open(alice, "2001:db8:1::2", host6, netlab.Filtered)
	curl(alice, "-X", "POST", "http://[2001:db8:1::1]:8080/knock")
	open(alice, "2001:db8:1::2", host6, netlab.Open)

	// For others: an address, then a network.
	const far4, far6 = "198.51.100.1:2222", "[2001:db8:2::1]:2222"
	open(others, "203.0.113.2", far4, netlab.Filtered)
	curl(alice, "--json", `{"ip_address":"203.0.113.2"}`, "http://192.0.2.1:8080/knock")
	open(others, "203.0.113.2", far4, netlab.Open)
	open(others, "203.0.113.3", far4, netlab.Filtered)
	open(others, "2001:db8:3::3", far6, netlab.Filtered)
	curl(alice, "--json", `{"ip_address":"2001:db8:3::/64"}`, "http://192.0.2.1:8080/knock")
	open(others, "2001:db8:3::2", far6, netlab.Open)
	open(others, "2001:db8:3::3", far6, netlab.Open)
	if rules := host.Run("nft", "list", "ruleset"); !strings.Contains(rules, "2001:db8:3::") {
		t.Errorf("the network is not in the ruleset:\n%s", rules)
	}
	if strings.Contains(caddy.Log.String(), adminKey) {
		t.Error("the log has the key")
	}
}
