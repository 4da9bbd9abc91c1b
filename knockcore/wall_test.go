// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// recordingWall keeps windows and bans in memory.
type recordingWall struct {
	recordingFirewall
	bans map[netip.Prefix]time.Time
}

func newRecordingWall() *recordingWall {
	return &recordingWall{recordingFirewall{windows: make(map[string]time.Time)}, make(map[netip.Prefix]time.Time)}
}

func (w *recordingWall) Ban(_ context.Context, bans ...Ban) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range bans {
		w.bans[b.Prefix] = b.Until
	}
	return w.fail
}

func (w *recordingWall) Lift(_ context.Context, prefixes ...netip.Prefix) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range prefixes {
		delete(w.bans, p)
	}
	return w.fail
}

func (w *recordingWall) Banned(context.Context) (bans []Ban, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, until := range w.bans {
		bans = append(bans, Ban{Prefix: p, Until: until, Strikes: 1})
	}
	return bans, w.fail
}

func (w *recordingWall) list() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for p := range w.bans {
		list = append(list, p.String())
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// TestWallFollowsBans: what is banned here is kept out there, and nothing else.
func TestWallFollowsBans(t *testing.T) {
	now := time.Now()
	w := newRecordingWall()
	allow := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	b := NewBans(BanConfig{Failures: 2, Capacity: 3, Wall: w, Allow: allow})
	want := func(when, want string) {
		t.Helper()
		if got := w.list(); got != want {
			t.Errorf("%s: %q is kept out, want %q", when, got, want)
		}
	}
	fail := func(address string) {
		b.Fail(netip.MustParseAddr(address), now)
		b.Fail(netip.MustParseAddr(address), now)
	}
	b.Fail(netip.MustParseAddr("192.0.2.9"), now)
	fail("10.0.0.1")
	want("one failure, and an allowed address", "")
	fail("192.0.2.1")
	fail("2001:db8::1")
	want("failures", "192.0.2.1/32 2001:db8::/64")
	if until := w.bans[netip.MustParsePrefix("192.0.2.1/32")]; !until.Equal(now.Add(10 * time.Minute)) {
		t.Errorf("until %v", until)
	}
	fail("192.0.2.2")
	b.Ban(netip.MustParseAddr("192.0.2.2"), now, time.Hour)
	if until := w.bans[netip.MustParsePrefix("192.0.2.2/32")]; !until.Equal(now.Add(time.Hour)) {
		t.Errorf("a longer ban: until %v", until)
	}
	for i := range 50 { // the list is full: each new one takes another's place
		fail(fmt.Sprintf("198.51.100.%d", i))
		if len(w.bans) != 3 {
			t.Fatalf("%d are kept out where 3 may be banned", len(w.bans))
		}
	}
	listed := make(map[netip.Prefix]time.Time)
	for _, ban := range b.List(now) {
		listed[ban.Prefix] = ban.Until
	}
	if !maps.EqualFunc(listed, w.bans, time.Time.Equal) {
		t.Errorf("banned: %v, kept out: %v", listed, w.bans)
	}

	// The next configuration takes over what it may ban, whether a store knows or not.
	w.bans[netip.MustParsePrefix("10.0.0.5/32")] = now.Add(time.Hour)
	w.bans[netip.MustParsePrefix("203.0.113.0/24")] = now.Add(time.Hour)
	w.bans[netip.MustParsePrefix("203.0.113.7/32")] = now.Add(time.Minute)
	next := NewBans(BanConfig{Wall: w, Allow: allow, Store: NewMemoryStore(0)})
	if err := next.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(w.list(), "/24") || strings.Contains(w.list(), "10.0.0.5") || len(w.bans) != 4 {
		t.Errorf("taken over: %s", w.list())
	}
	list := next.List(now)
	if len(list) != 4 || list[3].Prefix.String() != "203.0.113.7/32" || !list[3].Forgotten(now.Add(3*time.Minute)) {
		t.Errorf("taken over: %+v", list)
	}
	// Also of what only the firewall knows of.
	w.bans[netip.MustParsePrefix("203.0.113.8/32")] = now.Add(time.Hour)
	next.Lift(netip.MustParsePrefix("203.0.113.8/32"))
	if n := next.Lift(netip.MustParsePrefix("0.0.0.0/0")); n != 4 {
		t.Errorf("%d lifted", n)
	}
	want("lifted", "")

	// What other nodes tell.
	next.adopt(Ban{Prefix: netip.MustParsePrefix("192.0.2.3/32"), Made: now, Until: now.Add(time.Hour), Strikes: 1})
	next.adopt(Ban{Prefix: netip.MustParsePrefix("10.0.0.3/32"), Made: now, Until: now.Add(time.Hour), Strikes: 1})
	want("told by another node", "192.0.2.3/32")
	next.forget(netip.MustParsePrefix("192.0.2.3/32"))
	want("lifted at another node", "")

	// A firewall that fails does not keep the ban from holding here.
	w.fail = errors.New("out of order")
	next.Ban(netip.MustParseAddr("192.0.2.4"), now, time.Hour)
	if !next.Banned(netip.MustParseAddr("192.0.2.4"), now) {
		t.Error("not banned where the firewall fails")
	}
	if err := next.Restore(t.Context()); err == nil {
		t.Error("a firewall that can't tell who is banned was accepted")
	}
}

// TestWallKnowsGrants: the firewall that keeps banned addresses out knows of every
// window, also of services that another firewall gates, or none.
func TestWallKnowsGrants(t *testing.T) {
	w := newRecordingWall()
	g := newGateTest(t, func(c *Config) {
		c.Firewalls["wall"], c.Wall = w, "wall"
		c.Bans = NewBans(BanConfig{Failures: 1, Wall: w})
	})
	admit := func(change func(*Knock)) []*Grant {
		t.Helper()
		grants, err := g.Admit(t.Context(), g.knock("alice", change))
		if err != nil {
			t.Fatal(err)
		}
		return grants
	}
	ssh := admit(nil)[0]
	web := admit(func(k *Knock) { k.Ports = []PortRange{{TCP, 443, 443}} })[0]
	session := admit(func(k *Knock) { k.Ports, k.Session = []PortRange{{TCP, 8200, 8200}}, []byte("0123456789abcdef") })[0]
	admit(func(k *Knock) { k.Method = MethodEnvelopeV2 }) // a stream opens no window
	for key, grant := range map[string]*Grant{"203.0.113.7/32 ssh": ssh, "203.0.113.7/32 web": web, "203.0.113.7/32 vault": session} {
		if !w.end(key).Equal(grant.Expires) {
			t.Errorf("%s: the wall spares until %v, want %v", key, w.end(key), grant.Expires)
		}
	}
	if len(w.windows) != 3 || len(g.fw.windows) != 1 {
		t.Errorf("windows: %v, of the service's own firewall: %v", w.windows, g.fw.windows)
	}
	// The service's own firewall decides; the wall only spares.
	w.fail = errors.New("out of order")
	admit(func(k *Knock) { k.Source = netip.MustParseAddr("203.0.113.8") })
	w.fail, g.fw.fail = nil, errors.New("out of order")
	if _, err := g.Admit(t.Context(), g.knock("alice", func(k *Knock) { k.Source = netip.MustParseAddr("203.0.113.9") })); ReasonOf(err) != ReasonFirewallError {
		t.Errorf("admitted: %v", err)
	}
	g.fw.fail = nil
	if _, spared := w.windows["203.0.113.9/32 ssh"]; spared {
		t.Error("who was refused is spared")
	}
	// A firewall that is new to the services learns what stands.
	clear(w.windows)
	clear(g.fw.windows)
	if err := g.Reopen(t.Context(), []string{"ssh", "web"}); err != nil {
		t.Fatal(err)
	}
	if len(w.windows) != 3 || len(g.fw.windows) != 2 || !w.end("203.0.113.7/32 web").Equal(web.Expires) {
		t.Errorf("opened again: %v, %v", w.windows, g.fw.windows)
	}
	for _, grant := range g.State().Grants(nil) {
		if _, err := g.Revoke(t.Context(), grant.ID, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.windows) != 0 {
		t.Errorf("left: %v", w.windows)
	}
	stranger := netip.MustParseAddr("192.0.2.66")
	if g.KeepsOut(stranger) {
		t.Error("kept out before the ban")
	}
	g.Failed(MethodHTTP, stranger)
	if !g.KeepsOut(stranger) || w.list() != "192.0.2.66/32" {
		t.Errorf("kept out: %s", w.list())
	}
}
