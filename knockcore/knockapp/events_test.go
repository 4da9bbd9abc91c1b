// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	_ "github.com/caddyserver/caddy/v2/modules/caddyevents/eventsconfig"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

func init() { caddy.RegisterModule(eventProbe{}) }

// eventProbe is a handler of Caddy's events that remembers, and waits if it is
// told to.
type eventProbe struct{}

var probed struct {
	sync.Mutex
	seen  []string
	block chan struct{}
}

func (eventProbe) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.knock_probe", New: func() caddy.Module { return new(eventProbe) }}
}

func (*eventProbe) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { d.Next(); return nil }

func (eventProbe) Handle(_ context.Context, e caddy.Event) error {
	probed.Lock()
	probed.seen = append(probed.seen, fmt.Sprintf("%s %s %s %s%s", e.Name(), e.Data["client"], e.Data["service"], e.Data["reason"], e.Data["by"]))
	block := probed.block
	probed.Unlock()
	if block != nil && strings.HasPrefix(e.Name(), "knock.") { // not Caddy's own
		<-block
	}
	return nil
}

func probedEvents(name string) (n int) {
	probed.Lock()
	defer probed.Unlock()
	for _, s := range probed.seen {
		if strings.HasPrefix(s, name) {
			n++
		}
	}
	return n
}

// withEvents is the Caddyfile of a with subscriptions.
func (a *adminTest) withEvents(lines, events string) string {
	return strings.Replace(a.caddyfile(lines), "\tknock {", "\tevents {\n"+events+"\n\t}\n\tknock {", 1)
}

func startWithEvents(t *testing.T, lines, events string) *adminTest {
	t.Helper()
	a := &adminTest{t, fmt.Sprintf("127.0.0.1:%d", program.FreePort(t))}
	apptest.Load(t, a.withEvents(lines, events))
	return a
}

func TestEvents(t *testing.T) {
	probed.Lock()
	probed.seen, probed.block = nil, nil
	probed.Unlock()
	out := filepath.Join(t.TempDir(), "told")
	a := startWithEvents(t, adminClients, "on * knock_probe\n\ton knock.granted knock_exec touch \""+out+" {event.data.client} {event.data.source} ;$(x)\"")
	gate := apptest.App(t).Running()
	g, err := gate.GrantByHand(t.Context(), "alice", "ssh", netip.MustParsePrefix("203.0.113.7/32"), 0)
	if err != nil {
		t.Fatal(err)
	}
	// A command gets what placeholders stand for as they are: here, as part of one name.
	apptest.Await(t, "the command", func() bool {
		_, err := os.Stat(out + " alice 203.0.113.7 ;$(x)")
		return err == nil
	})
	if _, err := gate.Revoke(t.Context(), g.ID, "the test"); err != nil {
		t.Fatal(err)
	}
	for range 1000 { // sampled: one a second of a kind
		gate.Refuse(knockcore.MethodUDP, netip.MustParseAddr("203.0.113.8"), knockcore.ReasonStale)
	}
	gate.Refuse(knockcore.MethodUDP, netip.MustParseAddr("203.0.113.8"), knockcore.ReasonReplay)
	for range 20 {
		gate.Failed(knockcore.MethodHTTP, netip.MustParseAddr("203.0.113.9"))
	}
	if _, err := gate.GrantByHand(t.Context(), "bob", "ssh", netip.MustParsePrefix("203.0.113.7/32"), 1); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"knock.granted alice ssh", "knock.revoked alice ssh the test", "knock.refused   stale", "knock.refused   replay", "knock.banned", "knock.expired bob ssh",
	} {
		apptest.Await(t, want, func() bool { return probedEvents(want) > 0 })
	}
	if n := probedEvents("knock.refused   stale"); n > 20 {
		t.Errorf("%d of 1000 refusals were told one by one", n)
	}

	// A handler that hangs delays neither knocks nor a stop, and what is too much for
	// it is counted.
	block := make(chan struct{})
	probed.Lock()
	probed.block = block
	probed.Unlock()
	t.Cleanup(sync.OnceFunc(func() { close(block) }))
	for range 3000 {
		if _, err := gate.GrantByHand(t.Context(), "alice", "web", netip.MustParsePrefix("203.0.113.10/32"), 0); err != nil {
			t.Fatal(err)
		}
	}
	_, body := a.call(http.MethodGet, "/metrics", "")
	if strings.Contains(body, "caddy_knock_events_dropped_total 0") || !strings.Contains(body, "caddy_knock_events_dropped_total") {
		t.Error("nothing was dropped, or it was not counted")
	}
	if err := caddy.Stop(); err != nil {
		t.Error(err)
	}
}

func TestEventExecConfig(t *testing.T) {
	a := &adminTest{t, "127.0.0.1:2999"}
	for events, want := range map[string]string{
		"on knock.granted knock_exec":                              "takes a program",
		"on knock.granted knock_exec {event.data.client}":          "the program can't be a placeholder",
		"on knock.granted knock_exec touch x {\n\t\tcolour red\n}": "colour",
		"on knock.granted knock_exec touch x {\n\t\ttimeout x\n}":  "timeout",
	} {
		if _, err := apptest.Adapt(a.withEvents(adminClients, events)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Caddyfile:") {
			t.Errorf("%s: %v; want %q with its line", events, err, want)
		}
	}
	if _, err := apptest.Adapt(a.withEvents(adminClients, "on knock.granted knock_exec touch x {\n\t\ttimeout 3s\n}")); err != nil {
		t.Error(err)
	}
}

// sse is a reader of the stream.
type sse struct {
	*bufio.Scanner
	id string
}

func (a *adminTest) follow(ctx context.Context, query, last string) (*sse, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.address+"/knock/events"+query, nil)
	if err != nil {
		return nil, err
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := program.Persistent(new(http.Transport)).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	s := &sse{Scanner: bufio.NewScanner(resp.Body)}
	s.Scan() // the greeting: from here on it counts
	return s, nil
}

// next reads one event; nil at the end of the stream.
func (s *sse) next(t *testing.T) map[string]any {
	t.Helper()
	for s.Scan() {
		line := s.Text()
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			s.id = id
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			var v map[string]any
			if err := json.Unmarshal([]byte(data), &v); err != nil {
				t.Fatalf("%v in %s", err, data)
			}
			return v
		}
	}
	return nil
}

func TestEventStream(t *testing.T) {
	a := startAdmin(t, adminClients)
	gate := apptest.App(t).Running()
	grant := func(client, addr string) {
		t.Helper()
		if _, err := apptest.App(t).Running().GrantByHand(t.Context(), client, "ssh", netip.MustParsePrefix(addr+"/32"), 0); err != nil {
			t.Fatal(err)
		}
	}
	// Without what ends: other tests' grants do so now and then.
	all, err := a.follow(t.Context(), "?event=granted,refused", "")
	if err != nil {
		t.Fatal(err)
	}
	bob, err := a.follow(t.Context(), "?client=bob&event=granted,revoked", "")
	if err != nil {
		t.Fatal(err)
	}
	grant("alice", "203.0.113.1")
	grant("bob", "203.0.113.2")
	gate.Refuse(knockcore.MethodEnvelopeV2, netip.MustParseAddr("203.0.113.3"), &knockcore.Refusal{Reason: knockcore.ReasonFuture, Client: "bob", Skew: 90e9})
	for i, want := range []string{"alice 203.0.113.1/32", "bob 203.0.113.2/32"} {
		if e := all.next(t); fmt.Sprint(e["client"], " ", e["prefix"]) != want || e["event"] != "granted" {
			t.Errorf("event %d: %v", i, e)
		}
	}
	if e := all.next(t); e["reason"] != "future" || e["clock_ahead_seconds"] != 90.0 {
		t.Errorf("refusal: %v", e)
	}
	if e := bob.next(t); e["client"] != "bob" || e["event"] != "granted" {
		t.Errorf("bob's: %v", e)
	}

	// A reload ends the stream; who comes back misses nothing.
	grant("alice", "203.0.113.4")
	if e := all.next(t); e["prefix"] != "203.0.113.4/32" {
		t.Fatal(e)
	}
	apptest.Load(t, a.caddyfile(adminClients+"\n\ttime_window 31s"))
	grant("alice", "203.0.113.5")
	for e := all.next(t); e != nil; e = all.next(t) {
		t.Logf("still told: %v", e)
	}
	var again *sse
	apptest.Await(t, "the admin API", func() bool { again, err = a.follow(t.Context(), "?event=granted,refused", all.id); return err == nil })
	if e := again.next(t); e["prefix"] != "203.0.113.5/32" {
		t.Errorf("after the reload: %v", e)
	}
	if recent, err := a.follow(t.Context(), "?event=granted&last=2", ""); err != nil {
		t.Error(err)
	} else if e := recent.next(t); e["prefix"] != "203.0.113.4/32" {
		t.Errorf("the last but one: %v", e)
	}

	for _, query := range []string{"?colour=red", "?event=x", "?last=-1"} {
		if status, _ := a.call(http.MethodGet, "/knock/events"+query, ""); status != http.StatusBadRequest {
			t.Errorf("%s: %d", query, status)
		}
	}
	if _, err := a.follow(t.Context(), "", "nonsense"); err == nil {
		t.Error("a foreign Last-Event-ID was taken")
	}
	if status, _ := a.call(http.MethodPost, "/knock/events", ""); status != http.StatusMethodNotAllowed {
		t.Error("POST", status)
	}
	// So many readers and no more.
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	for ; n < 100; n++ {
		if _, err := a.follow(ctx, "", ""); err != nil {
			break
		}
	}
	if n < 20 || n > 32 {
		t.Errorf("%d readers were let in", n)
	}
	cancel()
	apptest.Await(t, "places for readers", func() bool { _, err := a.follow(t.Context(), "", ""); return err == nil })
}
