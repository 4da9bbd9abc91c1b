// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

func TestReplayElsewhere(t *testing.T) {
	_, nodes := newFleet(t, "a", "b", "c")
	k := held(nodes[0], "192.0.2.1")
	nodes[0].admit(k, knockcore.ReasonNone)
	for _, n := range nodes {
		n.admit(k, knockcore.ReasonReplay)
	}
	// The head of a captured frame is no oracle elsewhere: it is known there.
	for _, n := range nodes {
		program.Await(t, n.name+" knows the nonce", func() bool { return n.store.Seen(k.Replay) })
	}
}

func TestOneOfManyCopiesWins(t *testing.T) {
	_, nodes := newFleet(t, "a", "b", "c")
	for range 5 {
		k := frame(nodes[0].Gatekeeper, knockcore.MethodUDP, "192.0.2.1", "ssh")
		k.Window = 10 * time.Minute
		var wins, replays atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range 100 {
			n := nodes[i%len(nodes)]
			copied := k
			copied.Client = n.Keyring().Client("alice")
			wg.Go(func() {
				<-start
				switch _, err := n.Admit(context.Background(), copied); knockcore.ReasonOf(err) {
				case knockcore.ReasonNone:
					wins.Add(1)
				case knockcore.ReasonReplay:
					replays.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		if wins.Load() != 1 || replays.Load() != 99 {
			t.Fatalf("%d won, %d were replays", wins.Load(), replays.Load())
		}
	}
}

func TestGrantAndRevokeEverywhere(t *testing.T) {
	server, nodes := newFleet(t, "a", "b", "c")
	nodes[0].knock("192.0.2.1", knockcore.ReasonNone)
	nodes[1].knock("2001:db8::1", knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.1", true)
	everywhere(t, nodes, "2001:db8::1", true)

	// The same again at another node renews the one grant.
	nodes[2].knock("192.0.2.1", knockcore.ReasonNone)
	for _, n := range nodes {
		program.Await(t, "the renewal", func() bool {
			grants := n.State().Grants(func(g *knockcore.Grant) bool { return g.Prefix.String() == "192.0.2.1/32" })
			return len(grants) == 1 && n.store.last.Load() == nodes[2].store.last.Load()
		})
	}

	// A node that comes later learns it, too.
	late := newNode(t, "d", server.Address, nil)
	everywhere(t, []*testNode{late}, "192.0.2.1", true)
	nodes = append(nodes, late)

	if n, errs := nodes[2].RevokeAll(t.Context(), knockcore.Selection{Client: "alice", Prefix: netip.MustParsePrefix("192.0.2.0/24")}, "test"); n != 1 || errs != nil {
		t.Fatalf("%d revoked, %v", n, errs)
	}
	everywhere(t, nodes, "192.0.2.1", false)
	everywhere(t, nodes, "2001:db8::1", true)
	if grants, err := late.store.Grants(t.Context()); err != nil || len(grants) != 1 {
		t.Fatalf("%d grants are kept, %v", len(grants), err)
	}
}

// A stream is known only to the node that admitted it; it is cut wherever it is
// revoked.
func TestRevokeCutsStreamsElsewhere(t *testing.T) {
	_, nodes := newFleet(t, "a", "b")
	k := held(nodes[0], "192.0.2.1")
	k.Method = knockcore.MethodEnvelopeV2
	byID, byClient := make(chan struct{}), make(chan struct{})
	g1 := nodes[0].admit(k, knockcore.ReasonNone)[0]
	defer nodes[0].State().Track(g1, netip.MustParseAddrPort("192.0.2.1:1000"), func() { close(byID) })()
	k = held(nodes[0], "192.0.2.1")
	k.Method = knockcore.MethodEnvelopeV2
	g2 := nodes[0].admit(k, knockcore.ReasonNone)[0]
	defer nodes[0].State().Track(g2, netip.MustParseAddrPort("192.0.2.1:1001"), func() { close(byClient) })()
	if _, errs := nodes[1].RevokeAll(t.Context(), knockcore.Selection{ID: g1.ID}, "test"); errs != nil {
		t.Fatal(errs)
	}
	<-byID
	select {
	case <-byClient:
		t.Fatal("the other stream was cut, too")
	default:
	}
	if _, errs := nodes[1].RevokeAll(t.Context(), knockcore.Selection{Client: "alice"}, "test"); errs != nil {
		t.Fatal(errs)
	}
	<-byClient
}

// A knock at one node pays for one stream, at whichever node it comes.
func TestSessionElsewhere(t *testing.T) {
	_, nodes := newFleet(t, "a", "b", "c")
	for range 5 {
		k := held(nodes[0], "192.0.2.7")
		k.Services = []string{"vault"}
		k.Session = []byte("0123456789abcdef0123456789abcdef")
		nodes[0].admit(k, knockcore.ReasonNone)
		var admitted, refused atomic.Int32
		var wg sync.WaitGroup
		for _, n := range nodes {
			wg.Go(func() {
				f := held(n, "192.0.2.7")
				f.Method, f.Services, f.Session = knockcore.MethodEnvelopeV2, k.Services, k.Session
				switch _, err := n.Admit(context.Background(), f); knockcore.ReasonOf(err) {
				case knockcore.ReasonNone:
					admitted.Add(1)
				case knockcore.ReasonNoSession:
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if admitted.Load() != 1 || refused.Load() != 2 {
			t.Fatalf("%d admitted, %d refused", admitted.Load(), refused.Load())
		}
	}
}

func TestBansEverywhere(t *testing.T) {
	server, nodes := newFleet(t, "a", "b")
	addr := netip.MustParseAddr("198.51.100.1")
	nodes[0].Failed(knockcore.MethodHTTP, addr)
	nodes = append(nodes, newNode(t, "c", server.Address, nil))
	for _, n := range nodes {
		program.Await(t, "the ban at "+n.name, func() bool { return n.bans.Banned(addr, time.Now()) })
	}
	nodes[1].bans.Lift(knockcore.AddrPrefix(addr))
	for _, n := range nodes {
		program.Await(t, "the lift at "+n.name, func() bool { return !n.bans.Banned(addr, time.Now()) })
	}
}

// Late and repeated announcements do not revive a revoked grant.
func TestLateAnnouncements(t *testing.T) {
	_, nodes := newFleet(t, "a", "b")
	nodes[0].knock("192.0.2.1", knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.1", true)
	store := nodes[1].store
	changes, err := store.read(t.Context(), store.link.Load(), "0-0", 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	if n, errs := nodes[0].RevokeAll(t.Context(), knockcore.Selection{Client: "alice"}, "test"); n != 1 || errs != nil {
		t.Fatal(n, errs)
	}
	everywhere(t, nodes, "192.0.2.1", false)
	for range 2 {
		for _, c := range changes {
			e, err := parseEntry(c.id, c.text)
			if err != nil {
				t.Fatal(err)
			}
			store.apply(e)
		}
	}
	if nodes[1].in("192.0.2.1") {
		t.Fatal("a repeated announcement revived the grant")
	}
	// A missed change, and a log that was cut, are found.
	store.last.Add(^uint64(0))
	nodes[0].knock("192.0.2.2", knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.2", true)
	if nodes[1].in("192.0.2.1") {
		t.Fatal("comparing revived the grant")
	}
}
