// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recordingFirewall keeps the windows in memory.
type recordingFirewall struct {
	mu      sync.Mutex
	windows map[string]time.Time
	fail    error
}

func (f *recordingFirewall) Setup(context.Context, []*Service) error { return nil }

func (f *recordingFirewall) Open(_ context.Context, windows ...Window) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	for _, w := range windows {
		f.windows[w.Prefix.String()+" "+w.Service] = w.Expires
	}
	return nil
}

func (f *recordingFirewall) Close(_ context.Context, windows ...Window) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range windows {
		delete(f.windows, w.Prefix.String()+" "+w.Service)
	}
	return nil
}

func (f *recordingFirewall) List(context.Context) ([]Window, error) { return nil, nil }

func (f *recordingFirewall) Stop(context.Context, ExitMode) error { return nil }

func (f *recordingFirewall) end(key string) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.windows[key]
}

type gateTest struct {
	*Gatekeeper
	fw     *recordingFirewall
	mu     sync.Mutex
	events []Event
	nonce  int
}

func newGateTest(t testing.TB, change func(*Config)) *gateTest {
	t.Helper()
	g := &gateTest{fw: &recordingFirewall{windows: make(map[string]time.Time)}}
	ring, err := NewKeyring([]*Client{
		{ID: "alice", Services: []string{"ssh", "web", "vault"}, RemoteBits4: 24, RemoteBits6: 64},
		{ID: "bob", AllServices: true, TTL: time.Minute, MaxTTL: 2 * time.Minute},
		{ID: "carol", Services: []string{"ssh"}, From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		{ID: "dave", Services: []string{"ssh"}, Methods: NewMethodSet(MethodEnvelopeV2)},
		{ID: "gone", Services: []string{"ssh"}, Expires: time.Now().Add(-time.Second)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ports := func(s string) []PortRange {
		r, err := ParsePortRange(s)
		if err != nil {
			t.Fatal(err)
		}
		return []PortRange{r}
	}
	cfg := Config{
		Keyring: ring,
		Services: []*Service{
			{Name: "ssh", Ports: ports("tcp/2222"), Firewall: "fw", OpenFor: 30 * time.Second, MaxOpen: time.Hour},
			{Name: "web", Ports: ports("tcp/443")},
			{Name: "vault", Ports: ports("tcp/8200"), RequireSession: true},
		},
		Firewalls: map[string]Firewall{"fw": g.fw},
		Observer: func(e Event) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.events = append(g.events, e)
		},
		Local: func(a netip.Addr) bool { return a.IsLoopback() },
	}
	if change != nil {
		change(&cfg)
	}
	if g.Gatekeeper, err = NewGatekeeper(cfg, NewState(NewMemoryStore(0), 0)); err != nil {
		t.Fatal(err)
	}
	g.Activate(t.Context())
	return g
}

// knock makes a fresh knock of a client by datagram.
func (g *gateTest) knock(client string, change func(*Knock)) Knock {
	g.nonce++
	k := Knock{
		Client: g.Keyring().Client(client), Method: MethodUDP, Source: netip.MustParseAddr("203.0.113.7"),
		Ports: []PortRange{{TCP, 2222, 2222}}, Time: time.Now(),
		Replay: NewReplayKey(ReplayUDP, client, fmt.Append(nil, g.nonce)),
	}
	if change != nil {
		change(&k)
	}
	return k
}

func TestAdmitRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		client string
		change func(*Knock)
		want   Reason
	}{
		"unknown port":        {"alice", func(k *Knock) { k.Ports[0].Low = 1 }, ReasonUnknownService},
		"unknown name":        {"alice", func(k *Knock) { k.Services = []string{"ftp"} }, ReasonUnknownService},
		"not hers":            {"carol", func(k *Knock) { k.Source = netip.MustParseAddr("192.0.2.1"); k.Ports[0].Low = 443 }, ReasonForbidden},
		"from elsewhere":      {"carol", nil, ReasonForbidden},
		"expired client":      {"gone", nil, ReasonForbidden},
		"other method":        {"dave", nil, ReasonWrongMethod},
		"stale":               {"alice", func(k *Knock) { k.Time = k.Time.Add(-30*time.Second - 50*time.Millisecond) }, ReasonStale},
		"future":              {"alice", func(k *Knock) { k.Time = k.Time.Add(31 * time.Second) }, ReasonFuture},
		"loopback":            {"alice", func(k *Knock) { k.Source = netip.MustParseAddr("127.0.0.1") }, ReasonForbidden},
		"mapped loopback":     {"alice", func(k *Knock) { k.Source = netip.MustParseAddr("::ffff:127.0.0.1") }, ReasonForbidden},
		"unspecified":         {"alice", func(k *Knock) { k.For = netip.MustParsePrefix("0.0.0.0/32") }, ReasonForbidden},
		"multicast":           {"alice", func(k *Knock) { k.For = netip.MustParsePrefix("224.0.0.1/32") }, ReasonForbidden},
		"too wide":            {"alice", func(k *Knock) { k.For = netip.MustParsePrefix("198.51.0.0/16") }, ReasonForbidden},
		"too wide, mapped":    {"alice", func(k *Knock) { k.For = netip.MustParsePrefix("::ffff:198.51.0.0/112") }, ReasonForbidden},
		"all of mapped":       {"alice", func(k *Knock) { k.For = netip.MustParsePrefix("::ffff:0:0/90") }, ReasonMalformed},
		"remote, not allowed": {"bob", func(k *Knock) { k.For = netip.MustParsePrefix("198.51.100.1/32") }, ReasonForbidden},
		"no session ID":       {"alice", func(k *Knock) { k.Ports[0] = PortRange{TCP, 8200, 8200} }, ReasonNoSession},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // no frame of the future becomes one of now
				g := newGateTest(t, nil)
				k := g.knock(c.client, c.change)
				_, err := g.Admit(t.Context(), k)
				if ReasonOf(err) != c.want {
					t.Fatalf("got %v, want %v", err, c.want)
				}
				if n := len(g.State().Grants(nil)); n > 0 {
					t.Errorf("%d grants were made", n)
				}
				if len(g.events) != 1 || g.events[0].Kind != EventRefused {
					t.Errorf("events: %v", g.events)
				}
			})
		})
	}
}

func TestStaleByTheStore(t *testing.T) {
	g := newGateTest(t, nil)
	store := g.State().Store.(*MemoryStore)
	k := g.knock("alice", nil)
	store.Guard.RaiseFloor(k.Time.Add(time.Minute))
	var refusal *Refusal
	if _, err := g.Admit(t.Context(), k); !errors.As(err, &refusal) || refusal.Reason != ReasonStale || !strings.Contains(refusal.Detail, "forgotten") {
		t.Errorf("got %v, want stale with why", err)
	}
}

func TestRefusedKnockIsNotSpent(t *testing.T) {
	g := newGateTest(t, nil)
	k := g.knock("carol", nil)
	if _, err := g.Admit(t.Context(), k); ReasonOf(err) != ReasonForbidden {
		t.Fatal(err)
	}
	k.Source = netip.MustParseAddr("192.0.2.1")
	if _, err := g.Admit(t.Context(), k); err != nil {
		t.Errorf("somebody burnt the frame by delivering it from elsewhere: %v", err)
	}
	if _, err := g.Admit(t.Context(), k); ReasonOf(err) != ReasonReplay {
		t.Errorf("a replay gives %v", err)
	}
}

func TestAdmitOnce(t *testing.T) {
	g := newGateTest(t, func(c *Config) { c.Observer = nil })
	k := g.knock("alice", nil)
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for range cap(errs) {
		wg.Go(func() { _, err := g.Admit(context.Background(), k); errs <- err })
	}
	wg.Wait()
	close(errs)
	won := 0
	for err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, ReasonReplay) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d won", won)
	}
}

func TestLengths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateTest(t, nil)
		for _, c := range []struct {
			client    string
			requested time.Duration
			want      time.Duration
		}{
			{"alice", 0, 30 * time.Second},
			{"alice", 10 * time.Minute, 10 * time.Minute},
			{"alice", 10 * time.Hour, time.Hour},
			{"bob", 0, time.Minute},
			{"bob", time.Hour, 2 * time.Minute},
			{"bob", time.Second, time.Second},
		} {
			grants, err := g.Admit(t.Context(), g.knock(c.client, func(k *Knock) { k.Length = c.requested }))
			if err != nil {
				t.Fatal(err)
			}
			if got := grants[0].Expires.Sub(grants[0].Made); got != c.want {
				t.Errorf("%s asking for %v: %v", c.client, c.requested, got)
			}
		}
	})
}

func TestWindowsFollowGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateTest(t, nil)
		const key = "203.0.113.7/32 ssh"
		start := time.Now()
		expect := func(what string, length time.Duration) {
			t.Helper()
			want := time.Time{}
			if length > 0 {
				want = start.Add(length)
			}
			if got := g.fw.end(key); !got.Equal(want) {
				t.Errorf("%s: the window ends %v after the start, not %v", what, got.Sub(start), length)
			}
		}
		admit := func(client string, length time.Duration) *Grant {
			t.Helper()
			grants, err := g.Admit(t.Context(), g.knock(client, func(k *Knock) { k.Length = length }))
			if err != nil {
				t.Fatal(err)
			}
			return grants[0]
		}
		a := admit("alice", 10*time.Minute)
		expect("alice", 10*time.Minute)
		b := admit("bob", time.Minute)
		expect("bob, shorter", 10*time.Minute)
		if again := admit("alice", 5*time.Minute); again.ID != a.ID {
			t.Error("a renewal made another grant")
		}
		expect("alice, shorter than before", 5*time.Minute)
		if ok, err := g.Revoke(t.Context(), a.ID, "test"); !ok || err != nil {
			t.Fatal(ok, err)
		}
		expect("only bob left", time.Minute)
		if ok, _ := g.Revoke(t.Context(), a.ID, "test"); ok {
			t.Error("revoked twice")
		}
		time.Sleep(time.Minute)
		if wait := g.Sweep(t.Context()); wait != time.Hour {
			t.Errorf("next look in %v", wait)
		}
		expect("all over", 0)
		if ok, _ := g.Revoke(t.Context(), b.ID, "test"); ok {
			t.Error("an expired grant was revoked")
		}
		var kinds []string
		for _, e := range g.events {
			kinds = append(kinds, e.Kind.String())
		}
		if want := []string{"granted", "granted", "granted", "revoked", "expired"}; !slices.Equal(kinds, want) {
			t.Errorf("events %v, want %v", kinds, want)
		}
	})
}

func TestFirewallErrorRollsBack(t *testing.T) {
	g := newGateTest(t, nil)
	g.fw.fail = errors.New("out of order")
	if _, err := g.Admit(t.Context(), g.knock("alice", nil)); ReasonOf(err) != ReasonFirewallError || !strings.Contains(err.Error(), "out of order") {
		t.Fatal(err)
	}
	if n := g.State().Len(); n != 0 {
		t.Errorf("%d grants stand", n)
	}
	if NewQuery(nil, nil).Match(g.State().Table, netip.MustParseAddr("203.0.113.7")) {
		t.Error("the address is in")
	}
}

func TestCloseKnock(t *testing.T) {
	g := newGateTest(t, nil)
	for _, client := range []string{"alice", "bob"} {
		if _, err := g.Admit(t.Context(), g.knock(client, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.Admit(t.Context(), g.knock("alice", func(k *Knock) { k.Action = ActionClose })); err != nil {
		t.Fatal(err)
	}
	grants := g.State().Grants(nil)
	if len(grants) != 1 || grants[0].Client != "bob" {
		t.Errorf("left: %v", grants)
	}
}

func (g *gateTest) session(client, id string, change func(*Knock)) Knock {
	return g.knock(client, func(k *Knock) {
		k.Ports = []PortRange{{TCP, 8200, 8200}}
		k.Session = []byte(id)
		if change != nil {
			change(k)
		}
	})
}

func frameOf(k *Knock) { k.Method = MethodEnvelopeV2 }

func TestSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateTest(t, nil)
		const s1, s2 = "session one 0123", "session two 0123"
		frame := func(id string) error {
			_, err := g.Admit(t.Context(), g.session("alice", id, frameOf))
			return err
		}
		for _, id := range []string{s1, s2} {
			if _, err := g.Admit(t.Context(), g.session("alice", id, nil)); err != nil {
				t.Fatal(err)
			}
		}
		if NewQuery(nil, nil).Match(g.State().Table, netip.MustParseAddr("203.0.113.7")) {
			t.Error("a knock for a session let the address in")
		}
		for _, c := range []struct {
			id   string
			want Reason
		}{{s1, ReasonNone}, {s1, ReasonNoSession}, {"another session", ReasonNoSession}, {"", ReasonNoSession}, {s2, ReasonNone}} {
			if err := frame(c.id); ReasonOf(err) != c.want {
				t.Errorf("session %q: %v", c.id, err)
			}
		}
		// A frame that overtakes its knock waits for it.
		done := make(chan error)
		go func() { done <- frame("session three 01") }()
		synctest.Wait()
		if _, err := g.Admit(t.Context(), g.session("alice", "session three 01", nil)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("the waiting frame: %v", err)
		}
		// Sessions run out.
		if _, err := g.Admit(t.Context(), g.session("alice", "session four 012", nil)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second)
		if err := frame("session four 012"); ReasonOf(err) != ReasonNoSession {
			t.Errorf("an old session: %v", err)
		}
	})
}

func TestWaitingFramesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateTest(t, func(c *Config) { c.Observer = nil })
		done := make(chan error, maxWaiting+12)
		for i := range cap(done) {
			k := g.session("alice", fmt.Sprintf("session %08d", i), frameOf)
			go func() { _, err := g.Admit(t.Context(), k); done <- err }()
		}
		synctest.Wait()
		if n := len(done); n != cap(done)-maxWaiting {
			t.Errorf("%d of %d were refused at once", n, cap(done))
		}
		time.Sleep(DefaultSessionWait)
		synctest.Wait()
		if len(done) != cap(done) {
			t.Error("some wait for ever")
		}
	})
}

// The session of a knock by a device's key tells whose it is, fits any frame of the
// client, and is kept. What others call their sessions names no device.
func TestSessionOfADevice(t *testing.T) {
	g := newGateTest(t, nil)
	open := func(services ...string) []*Grant {
		t.Helper()
		grants, err := g.Admit(t.Context(), Knock{
			Client: g.Keyring().Client("alice"), Method: MethodHTTP, Source: netip.MustParseAddr("203.0.113.7"), Services: services, Device: "tablet",
		})
		if err != nil {
			t.Fatal(err)
		}
		return grants
	}
	for _, grant := range open("vault", "web") {
		if grant.Device() != "tablet" {
			t.Errorf("%s: device %q", grant.Service, grant.Device())
		}
	}
	for _, id := range []string{"any session 0123", ""} {
		if _, err := g.Admit(t.Context(), g.session("alice", id, frameOf)); err != nil {
			t.Errorf("session %q: %v", id, err)
		}
		if _, err := g.Admit(t.Context(), g.session("alice", id, frameOf)); ReasonOf(err) != ReasonNoSession {
			t.Errorf("session %q counts twice: %v", id, err)
		}
		open("vault")
	}
	kept, err := g.State().Store.Grants(t.Context())
	if err != nil || len(kept) != 4 || slices.ContainsFunc(kept, func(g *Grant) bool { return g.Device() != "tablet" }) {
		t.Errorf("kept: %+v, %v", kept, err)
	}
	grants, err := g.Admit(t.Context(), g.session("alice", "device:tablet 01", nil))
	if err != nil || grants[0].Device() != "" {
		t.Errorf("a session that looks like a device: %+v, %v", grants, err)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	g := newGateTest(t, nil)
	for i := range MaxSessions + 1 {
		_, err := g.Admit(t.Context(), g.session("alice", fmt.Sprintf("session %08d", i), nil))
		if want := i == MaxSessions; (ReasonOf(err) == ReasonLimited) != want {
			t.Fatalf("session %d: %v", i, err)
		}
	}
}

func TestPrune(t *testing.T) {
	g := newGateTest(t, nil)
	cut := make(chan struct{})
	grants, err := g.Admit(t.Context(), g.knock("alice", frameOf))
	if err != nil {
		t.Fatal(err)
	}
	defer g.State().Track(grants[0], netip.AddrPort{}, func() { close(cut) })()
	for _, client := range []string{"alice", "bob"} {
		if _, err := g.Admit(t.Context(), g.knock(client, nil)); err != nil {
			t.Fatal(err)
		}
	}
	ring, err := NewKeyring([]*Client{{ID: "bob", AllServices: true}})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := g.SetKeyring(t.Context(), ring); n != 2 || err != nil {
		t.Errorf("%d revoked, %v", n, err)
	}
	<-cut
	// Late: a stream that an older configuration admitted meanwhile.
	late := make(chan struct{})
	g.State().Track(&Grant{ID: NewGrantID(), Client: "alice", Service: "ssh"}, netip.AddrPort{}, func() { close(late) })()
	<-late
	if grants := g.State().Grants(nil); len(grants) != 1 || grants[0].Client != "bob" {
		t.Errorf("left: %v", grants)
	}
}

func TestRestore(t *testing.T) {
	store := NewMemoryStore(0)
	g := newGateTest(t, nil)
	g.state = NewState(store, 0)
	if _, err := g.Admit(t.Context(), g.knock("alice", func(k *Knock) { k.Length = time.Hour })); err != nil {
		t.Fatal(err)
	}
	next := newGateTest(t, nil)
	next.state = NewState(store, 0)
	if n, err := next.Restore(t.Context()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if next.fw.end("203.0.113.7/32 ssh").IsZero() {
		t.Error("the window was not opened again")
	}
	if !NewQuery([]string{"ssh"}, []string{"alice"}).Match(next.state.Table, netip.MustParseAddr("203.0.113.7")) {
		t.Error("the address is not in")
	}
}

// TestRestoreLate: a grant that runs out while its window is being opened again
// keeps nobody from starting.
func TestRestoreLate(t *testing.T) {
	store := NewMemoryStore(0)
	g := newGateTest(t, nil)
	g.state = NewState(store, 0)
	if _, err := g.Admit(t.Context(), g.knock("alice", func(k *Knock) { k.Length = time.Hour })); err != nil {
		t.Fatal(err)
	}
	start, looks := time.Now(), 0
	next := newGateTest(t, func(c *Config) {
		c.Now = func() time.Time { // it ends between the first look at the clock and the second
			if looks++; looks == 1 {
				return start
			}
			return start.Add(2 * time.Hour)
		}
	})
	next.state = NewState(store, 0)
	next.fw.fail = errors.New("the window is over already")
	looks = 0
	if n, err := next.Restore(t.Context()); n != 0 || err != nil {
		t.Error(n, err)
	}
	if left, _ := store.Grants(t.Context()); len(left) != 0 {
		t.Errorf("%d grants are kept", len(left))
	}
}

func TestUsedSessionStaysUsed(t *testing.T) {
	store := NewMemoryStore(0)
	noWait := func(c *Config) { c.SessionWait = -1 }
	g := newGateTest(t, noWait)
	g.state = NewState(store, 0)
	const id = "session one 0123"
	if _, err := g.Admit(t.Context(), g.session("alice", id, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Admit(t.Context(), g.session("alice", id, frameOf)); err != nil {
		t.Fatal(err)
	}
	next := newGateTest(t, noWait)
	next.nonce = 100
	next.state = NewState(store, 0)
	if n, err := next.Restore(t.Context()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := next.Admit(t.Context(), next.session("alice", id, frameOf)); ReasonOf(err) != ReasonNoSession {
		t.Errorf("a restart gave a use back: %v", err)
	}
}

// backwards lists the latest grant first.
type backwards struct{ *MemoryStore }

func (b backwards) Grants(ctx context.Context) ([]*Grant, error) {
	grants, err := b.MemoryStore.Grants(ctx)
	slices.SortFunc(grants, func(x, y *Grant) int { return y.Made.Compare(x.Made) })
	return grants, err
}

// TestRestoreAtTheLimits: as many sessions as there may be, others that are used up,
// and more grants than may be now keep nobody from starting.
func TestRestoreAtTheLimits(t *testing.T) {
	store := NewMemoryStore(0)
	g := newGateTest(t, nil)
	g.state = NewState(store, 0)
	for i := range MaxSessions + 10 {
		id := fmt.Sprintf("session %08d", i)
		if _, err := g.Admit(t.Context(), g.session("alice", id, nil)); err != nil {
			t.Fatal(err)
		}
		if i < 10 {
			if _, err := g.Admit(t.Context(), g.session("alice", id, frameOf)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range []Store{store, backwards{store}} { // stores list in no order
		next := newGateTest(t, nil)
		next.state = NewState(s, 0)
		if n, err := next.Restore(t.Context()); n != MaxSessions+10 || err != nil {
			t.Fatal(n, err)
		}
	}
	fewer := newGateTest(t, nil)
	fewer.state = NewState(store, 20)
	if n, err := fewer.Restore(t.Context()); n != 20 || err != nil {
		t.Fatal(n, err)
	}
	if left, _ := store.Grants(t.Context()); len(left) != 20 {
		t.Errorf("%d grants are kept", len(left))
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	s := NewSecret([]byte("hunter2 hunter2 hunter2"))
	type holder struct {
		Public  Secret
		private Secret
		client  *Client
	}
	h := holder{s, s, &Client{ID: "alice", Secrets: []Secret{s}}}
	ring, err := NewKeyring([]*Client{h.client})
	if err != nil {
		t.Fatal(err)
	}
	state := fmt.Sprintf("%x", ring.Credentials()[0].MAC.states[8:24])
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, value := range []any{s, &s, h, &h, h.client, *h.client, []Secret{s}, ring.Credentials(), ring.Credentials()[0], &ring.Credentials()[0].MAC} {
			out := fmt.Sprintf(verb, value)
			if strings.Contains(out, "hunter2") || strings.Contains(out, "68756e746572") || strings.Contains(out, "104 117 110") || strings.Contains(out, state) {
				t.Errorf("%s of %T prints %s", verb, value, out)
			}
		}
	}
}

func BenchmarkAdmitFrame(b *testing.B) {
	g := newGateTest(b, func(c *Config) { c.Observer = nil })
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Admit(b.Context(), g.knock("alice", frameOf)); err != nil {
			if ReasonOf(err) != ReasonReplayFull {
				b.Fatal(err)
			}
			g.state.Store = NewMemoryStore(0)
		}
	}
}

// cutterFunc is a Cutter that is told.
type cutterFunc func(netip.Prefix, *Service)

func (f cutterFunc) Cut(p netip.Prefix, s *Service) { f(p, s) }

// TestCutterIsTold: of grants of services that cut, when nobody may hold them any
// more.
func TestCutterIsTold(t *testing.T) {
	var state *State
	var cuts []string
	g := newGateTest(t, func(c *Config) {
		for i, s := range c.Services {
			cutting := *s
			cutting.CutOnExpire = !s.CloseAfterAuth
			c.Services[i] = &cutting
		}
		c.Cutter = cutterFunc(func(p netip.Prefix, s *Service) {
			inside := netip.AddrPortFrom(p.Addr(), 1)
			cuts = append(cuts, fmt.Sprint(p, s.Name, state.Holds(s.Name, inside)))
		})
	})
	state = g.State()
	exact, err := g.GrantByHand(t.Context(), "alice", "ssh", netip.MustParsePrefix("203.0.113.9/32"), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	wide, err := g.GrantByHand(t.Context(), "alice", "ssh", netip.MustParsePrefix("203.0.113.0/24"), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, grant := range []*Grant{exact, wide} {
		if _, err := g.Revoke(t.Context(), grant.ID, "test"); err != nil {
			t.Fatal(err)
		}
	}
	// The first one is still covered by the second.
	if want := "[203.0.113.9/32sshtrue 203.0.113.0/24sshfalse]"; fmt.Sprint(cuts) != want {
		t.Errorf("%v, want %s", cuts, want)
	}
	remote := netip.MustParseAddrPort("[::ffff:203.0.113.9]:4444")
	release := state.Track(&Grant{ID: NewGrantID(), Client: "alice", Service: "ssh", Scope: ScopeConnection}, remote, func() {})
	if !state.Holds("ssh", netip.MustParseAddrPort("203.0.113.9:4444")) || state.Holds("ssh", netip.MustParseAddrPort("203.0.113.9:4445")) {
		t.Error("admitted streams hold others, or not themselves")
	}
	release()
	if state.Holds("ssh", remote) {
		t.Error("a stream that ended holds on")
	}
}
