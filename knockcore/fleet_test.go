// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sharedStore is a Shared of which the test plays the other nodes.
type sharedStore struct {
	*MemoryStore
	sink    Sink
	follows int
	down    error
	left    int // uses that other nodes left
	saved   []GrantID
	deleted []GrantID
	orders  []Selection
}

func (s *sharedStore) Follow(sink Sink) { s.sink, s.follows = sink, s.follows+1 }
func (s *sharedStore) Admits() error    { return s.down }

func (s *sharedStore) TakeUse(context.Context, *Grant) (int, error) {
	if s.left == 0 {
		return 0, ReasonNoSession
	}
	s.left--
	return s.left, s.down
}

func (s *sharedStore) Order(_ context.Context, sel Selection) error {
	s.orders = append(s.orders, sel)
	return nil
}

func (s *sharedStore) SaveGrant(ctx context.Context, g *Grant) error {
	s.saved = append(s.saved, g.ID)
	return s.MemoryStore.SaveGrant(ctx, g)
}

func (s *sharedStore) DeleteGrant(ctx context.Context, id GrantID) error {
	s.deleted = append(s.deleted, id)
	return s.MemoryStore.DeleteGrant(ctx, id)
}

func newFleetTest(t *testing.T, change func(*Config)) (*gateTest, *sharedStore) {
	t.Helper()
	g := newGateTest(t, change)
	store := &sharedStore{MemoryStore: NewMemoryStore(0)}
	cfg := g.cfg
	if cfg.Bans != nil {
		cfg.Bans = NewBans(BanConfig{Store: store})
	}
	gate, err := NewGatekeeper(cfg, NewState(store, 0))
	if err != nil {
		t.Fatal(err)
	}
	g.Gatekeeper = gate
	gate.Activate(t.Context())
	return g, store
}

func elsewhere(client, service string, length time.Duration) *Grant {
	now, addr := time.Now(), netip.MustParseAddr("203.0.113.9")
	return &Grant{
		ID: NewGrantID(), Client: client, Service: service, Method: MethodUDP, Scope: ScopeAddress, Prefix: AddrPrefix(addr),
		Source: addr, Made: now, Expires: now.Add(length), Uses: -1,
	}
}

func TestGrantMadeElsewhere(t *testing.T) {
	g, store := newFleetTest(t, nil)
	const window = "203.0.113.9/32 ssh"
	grant := elsewhere("alice", "ssh", time.Minute)
	for range 2 {
		store.sink.Enter(grant, "b")
	}
	query := NewQuery([]string{"ssh"}, []string{"alice"})
	if g.fw.end(window).IsZero() || !query.Match(g.State().Table, grant.Source) {
		t.Error("the grant is not live here")
	}
	if len(g.events) != 1 || g.events[0].Kind != EventGranted || g.events[0].Node != "b" {
		t.Errorf("events: %+v", g.events)
	}
	renewed := *grant
	renewed.Expires = grant.Expires.Add(time.Minute)
	store.sink.Enter(&renewed, "c")
	if !g.fw.end(window).Equal(renewed.Expires) || g.State().Len() != 1 {
		t.Error("the renewal did not move the window")
	}
	store.sink.Remove(grant.ID, "c")
	store.sink.Remove(grant.ID, "c")
	if !g.fw.end(window).IsZero() || g.State().Len() != 0 {
		t.Error("the grant was not removed")
	}
	if len(store.saved)+len(store.deleted) != 0 {
		t.Error("what another node did was kept again")
	}
	// What this configuration knows nothing of, or what is over, is left alone.
	for _, other := range []*Grant{elsewhere("nobody", "ssh", time.Minute), elsewhere("alice", "other", time.Minute), elsewhere("alice", "ssh", -time.Second)} {
		store.sink.Enter(other, "b")
	}
	if g.State().Len() != 0 || len(store.deleted) != 0 {
		t.Error("a grant was entered, or deleted, that is not for this node")
	}
	// A firewall that fails opens nothing.
	g.fw.fail = context.DeadlineExceeded
	store.sink.Enter(elsewhere("alice", "ssh", time.Minute), "b")
	if g.State().Len() != 0 {
		t.Error("a grant without a window is live")
	}
}

func TestSameGrantAtAllNodes(t *testing.T) {
	a, _ := newFleetTest(t, nil)
	b, _ := newFleetTest(t, nil)
	prefix := netip.MustParsePrefix("203.0.113.0/24")
	id := func(g *gateTest, service string) GrantID {
		grant, err := g.GrantByHand(t.Context(), "alice", service, prefix, 0)
		if err != nil {
			t.Fatal(err)
		}
		return grant.ID
	}
	if id(a, "ssh") != id(b, "ssh") || id(a, "ssh") == id(a, "web") {
		t.Error("the grant of a client, service and prefix has not one ID")
	}
}

// TestToldTwiceAtOnce: a store may tell of its own copy of a grant in two calls at the
// same time. The race detector sees if that is changed.
func TestToldTwiceAtOnce(t *testing.T) {
	g, store := newFleetTest(t, nil)
	for range 20 {
		grant := elsewhere("alice", "ssh", time.Minute)
		before := *grant
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { store.sink.Enter(grant, "b") })
		}
		all.Wait()
		if !grant.equal(&before) || g.State().Len() != 1 {
			t.Fatalf("%+v became %+v; %d are live", before, *grant, g.State().Len())
		}
	}
}

func TestRevokeInFleet(t *testing.T) {
	g, store := newFleetTest(t, nil)
	grant, err := g.GrantByHand(t.Context(), "alice", "ssh", netip.MustParsePrefix("203.0.113.9/32"), 0)
	if err != nil {
		t.Fatal(err)
	}
	sel := Selection{Client: "alice"}
	if n, errs := g.RevokeAll(t.Context(), sel, "test"); n != 1 || errs != nil {
		t.Errorf("%d revoked, %v", n, errs)
	}
	if !slices.Contains(store.deleted, grant.ID) || len(store.orders) != 1 || store.orders[0] != sel {
		t.Errorf("the fleet was told: deleted %v, orders %v", store.deleted, store.orders)
	}
	// What others order ends streams here, of those that are meant.
	cut := make(map[string]bool)
	for _, client := range []string{"alice", "bob"} {
		stream := elsewhere(client, "ssh", time.Minute)
		stream.Scope = ScopeConnection
		defer g.State().Track(stream, netip.AddrPortFrom(stream.Source, 1), func() { cut[client] = true })()
	}
	store.sink.Revoke(sel, "b")
	if !cut["alice"] || cut["bob"] {
		t.Errorf("cut: %v", cut)
	}
	if len(store.orders) != 1 {
		t.Error("an order was passed on")
	}
}

func TestSelection(t *testing.T) {
	grant := elsewhere("alice", "ssh", time.Minute)
	for _, sel := range []Selection{
		{},
		{ID: grant.ID},
		{Client: "alice"},
		{Service: "ssh"},
		{Method: MethodUDP},
		{Prefix: netip.MustParsePrefix("203.0.113.0/24")},
		{Client: "alice", Service: "ssh"},
	} {
		if !sel.Match(grant) {
			t.Errorf("%+v does not match", sel)
		}
	}
	for _, sel := range []Selection{
		{ID: NewGrantID()},
		{Client: "bob"},
		{Service: "web"},
		{Method: MethodHTTP},
		{Prefix: netip.MustParsePrefix("203.0.114.0/24")},
		{Client: "alice", Service: "web"},
	} {
		if sel.Match(grant) || sel.All() {
			t.Errorf("%+v matches", sel)
		}
	}
}

func TestStoreSaysNo(t *testing.T) {
	g, store := newFleetTest(t, nil)
	k := Knock{Client: g.Keyring().Client("alice"), Method: MethodHTTP, Source: netip.MustParseAddr("203.0.113.9"), Services: []string{"ssh"}}
	store.down = ReasonStoreError
	if _, err := g.Admit(t.Context(), k); ReasonOf(err) != ReasonStoreError {
		t.Errorf("without a nonce and a store: %v", err)
	}
	store.down = nil
	if _, err := g.Admit(t.Context(), k); err != nil {
		t.Error(err)
	}
}

func TestUsesOfTheFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, store := newFleetTest(t, nil)
		session := []byte("0123456789abcdef0123456789abcdef")
		source := netip.MustParseAddr("203.0.113.9")
		frames := 0
		admit := func(m Method) error {
			frames++
			_, err := g.Admit(t.Context(), Knock{
				Client: g.Keyring().Client("alice"), Method: m, Source: source, Services: []string{"vault"}, Session: session, Time: time.Now(),
				Replay: NewReplayKey(ReplayTCP, "alice", []byte{byte(frames)}),
			})
			return err
		}
		for left, want := range map[int]Reason{1: ReasonNone, 0: ReasonNoSession} {
			if err := admit(MethodUDP); err != nil {
				t.Fatal(err)
			}
			store.left = left
			if err := admit(MethodEnvelopeV2); ReasonOf(err) != want {
				t.Errorf("with %d uses left: %v, want %v", left, err, want)
			}
		}
		if err := admit(MethodUDP); err != nil {
			t.Fatal(err)
		}
		store.left, store.down = 1, ReasonStoreError
		if err := admit(MethodEnvelopeV2); ReasonOf(err) != ReasonStoreError {
			t.Errorf("without a store: %v", err)
		}
	})
}

// The fleet forgets a grant by itself: another node may have renewed it.
func TestExpiryInFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, store := newFleetTest(t, nil)
		store.sink.Enter(elsewhere("alice", "ssh", time.Second), "b")
		time.Sleep(2 * time.Second)
		g.Sweep(t.Context())
		if g.State().Len() != 0 || len(store.deleted) != 0 {
			t.Errorf("%d grants are live, %v deleted", g.State().Len(), store.deleted)
		}
	})
}

func TestReloadInFleet(t *testing.T) {
	g, store := newFleetTest(t, nil)
	next, err := NewGatekeeper(g.cfg, g.State())
	if err != nil {
		t.Fatal(err)
	}
	next.Activate(t.Context())
	if store.follows != 2 {
		t.Errorf("the store was asked %d times", store.follows)
	}
	g.Deactivate(t.Context())
	store.sink.Enter(elsewhere("alice", "ssh", time.Minute), "b")
	if g.State().Len() != 1 {
		t.Error("the next configuration does not follow")
	}
	if n, err := next.Restore(t.Context()); n != 0 || err != nil {
		t.Errorf("restoring from a shared store: %d, %v", n, err)
	}
}

func TestBansInFleet(t *testing.T) {
	g, store := newFleetTest(t, func(cfg *Config) { cfg.Bans = NewBans(BanConfig{}) })
	now, addr := time.Now(), netip.MustParseAddr("198.51.100.1")
	store.sink.Ban(Ban{Prefix: AddrPrefix(addr), Made: now, Until: now.Add(time.Minute), Strikes: 2})
	store.sink.Ban(Ban{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Made: now, Until: now.Add(time.Minute), Strikes: 1})
	if !g.Bans().Banned(addr, now) || g.Bans().Banned(netip.MustParseAddr("192.0.2.1"), now) {
		t.Error("the ban of another node does not hold, or one that cannot be")
	}
	if kept, _ := store.Bans(t.Context()); len(kept) != 0 {
		t.Error("what another node did was kept again")
	}
	store.sink.Lift(AddrPrefix(addr))
	if g.Bans().Banned(addr, now) || len(g.Bans().List(now)) != 0 {
		t.Error("the ban was not lifted")
	}
}
