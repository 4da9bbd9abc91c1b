// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// TestHealedIsTold breaks the table of a built Caddy in two ways: each repair is
// told to a command by Caddy's events, to a reader of the stream, in the log and in
// the metrics, also after a reload.
func TestHealedIsTold(t *testing.T) {
	g := newHost(t, "")
	told := filepath.Join(g.dir, "told")
	g.text = strings.Replace(g.text, "\tknock {", `	events {
		on knock.healed knock_exec touch "`+told+` {event.data.firewall} {event.data.windows} {event.data.found}"
	}
	knock {`, 1)
	g.write(g.text)
	g.start()
	watch := program.Start(t, g.host.Command(context.Background(), program.Caddy(t), "knock", "watch", "--event", "healed", "--json", "--address", g.admin))
	g.caddy.Await(t, "a reader of the events", func() bool {
		_, body := g.call(http.MethodGet, "/knock/status", "")
		return strings.Contains(body, `"events_readers":1`)
	})
	g.grant("192.0.2.2", "10m")
	g.grant("192.0.2.3", "10m")

	breakAndAwait := func(times int, how ...string) {
		t.Helper()
		g.host.Run(append([]string{"nft"}, how...)...)
		g.caddy.Await(t, "the command", func() bool {
			_, err := os.Stat(told + " nftables 2 the table is gone")
			return err == nil
		})
		line := regexp.MustCompile(`"event":"healed".*"firewall":"nftables","found":"the table is gone","windows":2`)
		watch.Await(t, "the stream", func() bool { return len(line.FindAllString(watch.Log.String(), -1)) == times })
		g.caddy.Await(t, "the log", func() bool { // which comes by another pipe than the stream
			return strings.Count(g.caddy.Log.String(), "the gate was broken and is mended") == times
		})
		if _, body := g.call(http.MethodGet, "/metrics", ""); !regexp.MustCompile(`(?m)^caddy_knock_firewall_heals_total\{firewall="nftables"\} ` + strconv.Itoa(times) + `$`).MatchString(body) {
			t.Errorf("the metrics don't tell of %d repairs", times)
		}
		if g.stranger.Probe("tcp", "198.51.100.1:2222") == netlab.Open {
			t.Error("a stranger is in after the repair")
		}
		g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
	}
	breakAndAwait(1, "flush", "ruleset")

	// The firewall outlives configurations: the one that runs now is told.
	again := filepath.Join(g.dir, "again")
	g.write(strings.ReplaceAll(g.text, told, again))
	g.host.Run(program.Caddy(t), "reload", "--config", g.file, "--address", g.admin)
	told = again
	breakAndAwait(2, "delete", "table", "inet", "caddy_knock")
}
