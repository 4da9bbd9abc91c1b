// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package storagestore

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const alice, bob = "192.0.2.1/32", "2001:db8::1/128"

func TestGrantAndRevokeEverywhere(t *testing.T) {
	test(t, func(t *testing.T, storage *folder, nodes []*testNode) {
		nodes[0].grant(alice, 0)
		nodes[1].grant(bob, 0)
		looks()
		everywhere(t, nodes, alice, true)
		everywhere(t, nodes, bob, true)

		// The same again at another node renews the one grant, and shortens it.
		for _, length := range []time.Duration{2 * time.Hour, 30 * time.Minute} {
			g := nodes[2].grant(alice, length)
			looks()
			for _, n := range nodes {
				if end := n.end(alice); end.Sub(g.Expires).Abs() > time.Second {
					t.Errorf("%s: open until %v, want %v", n.name, end, g.Expires)
				}
			}
			if n := storage.in(grants); n != 2 {
				t.Errorf("the storage keeps %d grants", n)
			}
		}

		nodes[2].revoke(knockcore.Selection{Prefix: netip.MustParsePrefix(alice)})
		looks()
		everywhere(t, nodes, alice, false)
		everywhere(t, nodes, bob, true)

		// One that comes later learns what there is.
		late := newNode(t, "d", storage, nil)
		defer late.store.Close()
		everywhere(t, []*testNode{late}, alice, false)
		everywhere(t, []*testNode{late}, bob, true)
		looks()
		if st := late.store.Stats(); !st.Up || len(st.Nodes) != 4 || st.Items != 1 || st.Unsent != 0 || st.Age > poll {
			t.Errorf("figures: %+v", st)
		}
		// A look costs one listing, and one read for what is new.
		storage.set(func() { clear(storage.count) })
		looks()
		if loads, lists := storage.asked("load"), storage.asked("list"); loads != 0 || lists > 2*4 {
			t.Errorf("four nodes that looked at nothing new made %d reads and %d listings", loads, lists)
		}
		nodes[0].grant(alice, 0)
		looks()
		if loads := storage.asked("load"); loads != 3 {
			t.Errorf("%d reads of one grant by three nodes", loads)
		}
		// What is over leaves the storage.
		time.Sleep(time.Hour + grace + poll)
		synctest.Wait()
		everywhere(t, nodes, alice, false)
		if n := storage.in(grants); n != 0 {
			t.Errorf("%d grants that are over are kept", n)
		}
		for _, n := range nodes {
			n.mu.Lock()
			for _, e := range n.told {
				if e.Kind == knockcore.EventRevoked && e.Grant.Prefix.String() == bob {
					t.Errorf("%s: a grant that ran out was said to be revoked", n.name)
				}
			}
			n.mu.Unlock()
		}
	})
}

// Two nodes that did not know of each other's grant: nobody is out before the end
// that he was told.
func TestSameGrantAtOnce(t *testing.T) {
	test(t, func(t *testing.T, storage *folder, nodes []*testNode) {
		short, long := nodes[0].grant(alice, time.Hour), nodes[1].grant(alice, 2*time.Hour)
		if short.ID != long.ID {
			t.Fatal("not the same grant")
		}
		looks()
		for _, n := range nodes {
			if end := n.end(alice); end.Sub(long.Expires).Abs() > time.Second {
				t.Errorf("%s: open until %v, want %v", n.name, end, long.Expires)
			}
		}
		nodes[2].revoke(knockcore.Selection{ID: short.ID})
		looks()
		everywhere(t, nodes, alice, false)
		if n := storage.in(grants); n != 0 {
			t.Errorf("%d of both are still kept", n)
		}
	})
}

func TestRevokeWhatIsNotKnownYet(t *testing.T) {
	test(t, func(t *testing.T, storage *folder, nodes []*testNode) {
		nodes[0].grant(alice, 0)
		nodes[1].revoke(knockcore.Selection{Client: "alice"}) // has not heard of it
		cut := make(chan struct{})
		stream := &knockcore.Grant{ID: knockcore.NewGrantID(), Client: "alice", Service: "ssh", Scope: knockcore.ScopeConnection}
		defer nodes[0].State().Track(stream, netip.MustParseAddrPort("192.0.2.1:1"), func() { close(cut) })()
		nodes[1].grant(alice, 0) // afterwards
		looks()
		select {
		case <-cut:
		default:
			t.Error("a stream at another node was not cut")
		}
		looks()
		everywhere(t, nodes, alice, true)
		late := newNode(t, "d", storage, nil)
		defer late.store.Close()
		looks()
		everywhere(t, []*testNode{late}, alice, true)
		time.Sleep(orderLife + 2*poll)
		synctest.Wait()
		if n := storage.in(orders); n != 0 {
			t.Errorf("%d orders are kept for ever", n)
		}
	})
}

func TestSessionsAreLocal(t *testing.T) {
	test(t, func(t *testing.T, storage *folder, nodes []*testNode) {
		knock := func(n *testNode, method knockcore.Method, want knockcore.Reason) {
			t.Helper()
			addr := netip.MustParseAddr("192.0.2.1")
			_, err := n.Admit(t.Context(), knockcore.Knock{
				Method: method, Client: n.Keyring().Client("alice"), Source: addr, Services: []string{"vault"},
				Time: time.Now(), Session: []byte("0123456789abcdef"), Action: knockcore.ActionOpen,
			})
			if knockcore.ReasonOf(err) != want {
				t.Errorf("%s: %v, want %v", n.name, err, want)
			}
		}
		knock(nodes[0], knockcore.MethodUDP, knockcore.ReasonNone)
		looks()
		if n := storage.in(grants); n != 0 {
			t.Error("a session is in the storage")
		}
		knock(nodes[1], knockcore.MethodEnvelopeV2, knockcore.ReasonNoSession)
		// It outlives its node, as far as the local store does.
		if err := nodes[0].store.Close(); err != nil {
			t.Fatal(err)
		}
		again := newNode(t, "a", storage, nodes[0].local)
		defer again.store.Close()
		knock(again, knockcore.MethodEnvelopeV2, knockcore.ReasonNone)
		knock(again, knockcore.MethodEnvelopeV2, knockcore.ReasonNoSession)
		if list, err := nodes[0].local.Grants(t.Context()); err != nil || len(list) != 1 || list[0].Uses != 0 {
			t.Errorf("kept: %v, %v", list, err)
		}
	})
}

func TestBansEverywhere(t *testing.T) {
	test(t, func(t *testing.T, _ *folder, nodes []*testNode) {
		addr := netip.MustParseAddr("2001:db8::5")
		nodes[0].Failed(knockcore.MethodHTTP, addr)
		looks()
		for _, n := range nodes {
			if !n.bans.Banned(addr, time.Now()) {
				t.Errorf("not banned at %s", n.name)
			}
		}
		nodes[1].bans.Lift(knockcore.AddrPrefix(addr))
		looks()
		for _, n := range nodes {
			if n.bans.Banned(addr, time.Now()) {
				t.Errorf("banned at %s", n.name)
			}
		}
	})
}

// A storage that fails, is not mounted, or lists nothing, revokes nothing.
func TestStorageAway(t *testing.T) {
	test(t, func(t *testing.T, storage *folder, nodes []*testNode) {
		nodes[0].grant(alice, 0)
		looks()
		kept := storage.copy()
		for name, away := range map[string]func(){
			"it fails":          func() { storage.fail = errors.New("no such luck") },
			"it is not mounted": func() { storage.keys = make(map[string][]byte) },
			"its listing is empty": func() {
				storage.late = map[string][]byte{}
			},
			"its listing is short": func() {
				storage.late = make(map[string][]byte)
				for key, b := range kept {
					if strings.HasPrefix(key, root+"/"+marks) {
						storage.late[key] = b
					}
				}
			},
		} {
			storage.set(away)
			looks()
			everywhere(t, nodes, alice, true)
			for _, n := range nodes {
				if short := strings.HasSuffix(name, "short"); (n.store.Health() == nil) != short || n.store.Stats().Up != short {
					t.Errorf("%s: health of %s: %v", name, n.name, n.store.Health())
				}
			}
			nodes[1].grant(bob, 0)
			everywhere(t, nodes[1:2], bob, true)
			looks()
			if !strings.HasSuffix(name, "short") {
				everywhere(t, nodes[2:], bob, false)
			}
			storage.set(func() {
				if name == "it is not mounted" {
					if len(storage.keys) > 0 {
						t.Errorf("written beside the storage: %v", storage.keys)
					}
					storage.keys = kept
				}
				storage.fail, storage.late = nil, nil
			})
			looks() // of nodes[1], which writes
			looks()
			everywhere(t, nodes, bob, true)
			for _, n := range nodes {
				if err := n.store.Health(); err != nil {
					t.Errorf("%s is over: %v", name, err)
				}
			}
			nodes[2].revoke(knockcore.Selection{Prefix: netip.MustParsePrefix(bob)})
			looks()
			everywhere(t, nodes, bob, false)
			everywhere(t, nodes, alice, true)
			kept = storage.copy()
		}
	})
}

// A storage that was emptied on purpose is in use again once a node starts; then
// what the others know goes into it.
func TestStorageEmptied(t *testing.T) {
	test(t, func(t *testing.T, storage *folder, nodes []*testNode) {
		nodes[0].grant(alice, 0)
		nodes[1].bans.Fail(netip.MustParseAddr("192.0.2.9"), time.Now())
		looks()
		storage.set(func() { clear(storage.keys) })
		looks()
		late := newNode(t, "d", storage, nil)
		defer late.store.Close()
		everywhere(t, []*testNode{late}, alice, false)
		looks()
		looks()
		everywhere(t, append(nodes, late), alice, true)
		if !late.bans.Banned(netip.MustParseAddr("192.0.2.9"), time.Now()) {
			t.Error("the ban is gone")
		}
		for _, n := range nodes {
			if err := n.store.Health(); err != nil {
				t.Error(err)
			}
		}
		late.revoke(knockcore.Selection{Client: "alice"})
		looks()
		looks()
		everywhere(t, append(nodes, late), alice, false)
		if n := storage.in(grants); n != 0 {
			t.Errorf("%d grants are kept", n)
		}
	})
}

// Nobody waits long for a storage that hangs, and what it does late revives nothing.
func TestStorageHangs(t *testing.T) {
	test(t, func(t *testing.T, storage *folder, nodes []*testNode) {
		hang := make(chan struct{})
		storage.set(func() { storage.hang = hang })
		start := time.Now()
		nodes[0].grant(alice, 0)
		if took := time.Since(start); took > Timeout {
			t.Errorf("a grant took %v", took)
		}
		everywhere(t, nodes[:1], alice, true)
		if nodes[0].store.Health() == nil {
			t.Error("nothing is said")
		}
		if _, errs := nodes[0].RevokeAll(t.Context(), knockcore.Selection{Prefix: netip.MustParsePrefix(bob)}, "test"); len(errs) != 1 {
			t.Errorf("an order that the others do not hear: %v", errs)
		}
		if ok, err := nodes[0].Revoke(t.Context(), nodes[0].State().Grants(nil)[0].ID, "test"); !ok || err != nil {
			t.Error(ok, err)
		}
		storage.set(func() { storage.hang = nil })
		looks()
		close(hang)
		looks()
		looks()
		everywhere(t, nodes, alice, false)
		if n := storage.in(grants); n != 0 {
			t.Errorf("%d grants are kept", n)
		}
		if err := nodes[0].store.Health(); err != nil {
			t.Error(err)
		}
	})
}

// A node whose clock is behind opens no longer than the grant is long; one whose
// clock is ahead deletes nothing that may be live elsewhere.
func TestClocks(t *testing.T) {
	now := time.Now()
	g := &knockcore.Grant{
		ID: knockcore.NewGrantID(), Client: "alice", Service: "ssh", Scope: knockcore.ScopeAddress, Uses: -1,
		Prefix: netip.MustParsePrefix(alice), Source: netip.MustParseAddr("192.0.2.1"), Made: now, Expires: now.Add(time.Hour),
	}
	b, err := json.Marshal(value{Node: "a", Grant: g})
	if err != nil {
		t.Fatal(err)
	}
	l, ok := parseKey(root + "/" + grantName(g.ID) + "." + newStamp(now))
	if !ok {
		t.Fatal("key")
	}
	for off, want := range map[time.Duration]time.Duration{
		0: time.Hour, -30 * time.Minute: time.Hour, 20 * time.Minute: 40 * time.Minute, 2 * time.Hour: -time.Hour,
	} {
		e, err := parseEntry(l, b, now.Add(off))
		if err != nil {
			t.Fatal(err)
		}
		if left := e.grant.Expires.Sub(now.Add(off)); left != want || e.grant.Expires.Sub(e.grant.Made) != time.Hour {
			t.Errorf("clock %v off: %v left, want %v", off, left, want)
		}
	}
	test(t, func(t *testing.T, storage *folder, nodes []*testNode) {
		nodes[0].grant(alice, 0)
		looks()
		time.Sleep(time.Hour + ownGrace/2)
		synctest.Wait()
		if storage.in(grants) != 1 {
			t.Error("deleted at once")
		}
	})
}

// What others write there can harm nothing but itself.
func TestForeignKeys(t *testing.T) {
	test(t, func(t *testing.T, storage *folder, nodes []*testNode) {
		g := nodes[0].grant(alice, 0)
		looks()
		stamp := newStamp(time.Now())
		var good []byte
		for key, b := range storage.copy() {
			if strings.HasPrefix(key, root+"/grants/") {
				good = b
			}
		}
		storage.set(func() {
			for _, key := range []string{"knock", "knock/", "knock/grants", "knock/grants/x", "knock/grants/.x", "knock/other/x." + stamp, "knock/nodes/x." + stamp, "knock/nodes/." + stamp, "knock/a/b/c." + stamp} {
				storage.keys[key] = []byte("x")
			}
			storage.keys["knock/grants/"+knockcore.NewGrantID().String()+"."+stamp] = good
			storage.keys["knock/grants/"+g.ID.String()+"."+stamp] = []byte(`{"grant":{"Client":"bob"}}`)
			storage.keys["knock/bans/192.0.2.0_24."+stamp] = []byte(`{"ban":{"Prefix":"192.0.2.0/8"}}`)
			storage.keys["knock/orders/x."+stamp] = []byte(`{}`)
		})
		looks()
		for _, n := range nodes {
			if err := n.store.Health(); err == nil || !strings.Contains(err.Error(), "4 entries") {
				t.Errorf("%s: %v", n.name, err)
			}
			if n.State().Len() != 1 {
				t.Errorf("%s has %d grants", n.name, n.State().Len())
			}
		}
		storage.set(func() {
			for key := range storage.keys {
				if strings.HasSuffix(key, stamp) {
					delete(storage.keys, key)
				}
			}
		})
		looks()
		everywhere(t, nodes, alice, true)
		for _, n := range nodes {
			if err := n.store.Health(); err != nil {
				t.Error(err)
			}
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add("knock/grants/0102030405060708.0000000000000000000a", []byte(`{"grant":{"ID":"0102030405060708"}}`))
	f.Add("knock/bans/192.0.2.0_24.0000000000000000000a", []byte(`{"ban":{"Prefix":"192.0.2.0/24","Strikes":1}}`))
	f.Fuzz(func(t *testing.T, key string, b []byte) {
		l, ok := parseKey(key)
		if !ok {
			return
		}
		e, err := parseEntry(l, b, time.Now())
		if err != nil {
			return
		}
		if e.grant != nil && (e.grant.Scope != knockcore.ScopeAddress || grantName(e.grant.ID) != e.name || time.Until(e.grant.Expires) > e.grant.Expires.Sub(e.grant.Made)+time.Second) ||
			e.ban != nil && banName(e.ban.Prefix) != e.name || (e.grant == nil) == (e.ban == nil) {
			t.Errorf("%+v", e)
		}
	})
}

func TestTwoNodesOfOneName(t *testing.T) {
	test(t, func(t *testing.T, storage *folder, nodes []*testNode) {
		time.Sleep(time.Second)
		other := newNode(t, "a", storage, nil)
		defer other.store.Close()
		for range 20 {
			looks()
			if err := nodes[0].store.Health(); err != nil && strings.Contains(err.Error(), `called "a"`) {
				return
			}
		}
		t.Error("nothing is said of it")
	})
}

func TestCheckNode(t *testing.T) {
	for name, good := range map[string]bool{"a.example-1": true, "": false, "a b": false, "a/b": false, strings.Repeat("a", 128): false} {
		if err := CheckNode(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// shared is a local store that nodes share, too.
type shared struct {
	knockcore.Store
	follows, takes atomic.Int32
}

func (s *shared) Follow(knockcore.Sink) { s.follows.Add(1) }
func (s *shared) Admits() error         { return knockcore.ReasonStoreError }

func (s *shared) TakeUse(context.Context, *knockcore.Grant) (int, error) {
	s.takes.Add(1)
	return 7, nil
}

func (s *shared) Order(context.Context, knockcore.Selection) error { return errors.New("not asked") }

func TestSessionsInASharedStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := &shared{Store: knockcore.NewMemoryStore(0)}
		n := newNode(t, "a", newFolder(), local)
		defer n.store.Close()
		left, err := n.store.TakeUse(t.Context(), new(knockcore.Grant))
		if local.follows.Load() != 1 || left != 7 || err != nil || !errors.Is(n.store.Admits(), knockcore.ReasonStoreError) {
			t.Error("the local store's word does not count")
		}
		if err := n.store.Order(t.Context(), knockcore.Selection{}); err != nil {
			t.Error(err)
		}
	})
}
