// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/redislab"
)

// testWindow is the time window of the tests' frames: short, so that the time
// after the beginning of an epoch is.
const testWindow = 400 * time.Millisecond

// windows is a firewall that keeps its windows in memory.
type windows struct {
	knockcore.Firewall
	mu   sync.Mutex
	open map[knockcore.Window]time.Time
}

func (w *windows) Open(_ context.Context, list ...knockcore.Window) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, win := range list {
		w.open[knockcore.Window{Prefix: win.Prefix, Service: win.Service}] = win.Expires
	}
	return nil
}

func (w *windows) Close(_ context.Context, list ...knockcore.Window) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, win := range list {
		delete(w.open, knockcore.Window{Prefix: win.Prefix, Service: win.Service})
	}
	return nil
}

// testNode is a node of a fleet without Caddy: a gatekeeper over a store.
type testNode struct {
	*knockcore.Gatekeeper
	*testing.T
	name  string
	store *Store
	bans  *knockcore.Bans
	fw    *windows
	mu    sync.Mutex
	told  []knockcore.Event
}

const testPrefix = "fleet"

func newNode(t *testing.T, name, address string, change func(*Options)) *testNode {
	t.Helper()
	opts := testOptions(t, name, testPrefix, address)
	ended := new(atomic.Bool)
	log := opts.Log
	opts.Log = func(level, msg string, err error) {
		if !ended.Load() {
			log(level, msg, err)
		}
	}
	opts.Window = 5 * time.Second
	if change != nil {
		change(&opts)
	}
	store, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended.Store(true)
		_ = store.Close()
	})
	return newGate(t, name, store)
}

func newGate(t *testing.T, name string, store *Store) *testNode {
	t.Helper()
	n := &testNode{T: t, name: name, store: store, fw: &windows{open: make(map[knockcore.Window]time.Time)}}
	ring, err := knockcore.NewKeyring([]*knockcore.Client{{ID: "alice", AllServices: true}, {ID: "bob", AllServices: true}})
	if err != nil {
		t.Fatal(err)
	}
	port := func(s string) []knockcore.PortRange {
		p, err := knockcore.ParsePortRange(s)
		if err != nil {
			t.Fatal(err)
		}
		return []knockcore.PortRange{p}
	}
	n.bans = knockcore.NewBans(knockcore.BanConfig{Failures: 1, Store: store})
	n.Gatekeeper, err = knockcore.NewGatekeeper(knockcore.Config{
		Keyring: ring, Window: testWindow, SessionWait: 500 * time.Millisecond, Bans: n.bans,
		Services: []*knockcore.Service{
			{Name: "ssh", Ports: port("tcp/22"), Firewall: "fw", OpenFor: time.Hour},
			{Name: "vault", Ports: port("tcp/8200"), RequireSession: true, OpenFor: time.Hour},
		},
		Firewalls: map[string]knockcore.Firewall{"fw": n.fw},
		Observer: func(e knockcore.Event) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.told = append(n.told, e)
		},
	}, knockcore.NewState(store, 0))
	if err != nil {
		t.Fatal(err)
	}
	n.Activate(t.Context())
	return n
}

// fleet starts a server, old enough that frames are taken at once, and nodes.
func newFleet(t *testing.T, names ...string) (*redislab.Server, []*testNode) {
	server := redislab.Start(t)
	server.Forgive(testPrefix)
	var nodes []*testNode
	for _, name := range names {
		nodes = append(nodes, newNode(t, name, server.Address, nil))
	}
	return server, nodes
}

var frames atomic.Uint64

// frame makes a knock as of now.
func frame(g *knockcore.Gatekeeper, m knockcore.Method, from, service string) knockcore.Knock {
	nonce := binary.BigEndian.AppendUint64(nil, frames.Add(1))
	return knockcore.Knock{
		Client: g.Keyring().Client("alice"), Method: m, Source: netip.MustParseAddr(from), Services: []string{service},
		Time: time.Now(), Replay: knockcore.NewReplayKey(knockcore.ReplayUDP, "alice", nonce),
	}
}

// knock knocks for ssh from an address and wants this outcome. It returns the frame.
func (n *testNode) knock(from string, want knockcore.Reason) knockcore.Knock {
	n.Helper()
	for {
		k := frame(n.Gatekeeper, knockcore.MethodUDP, from, "ssh")
		_, err := n.Admit(context.Background(), k)
		got := knockcore.ReasonOf(err)
		if got == knockcore.ReasonStale && want != got && time.Since(k.Time) > testWindow {
			continue // the machine paused, and the frame grew old
		}
		if got != want {
			n.Fatalf("%s: the knock gives %v (%v), want %v", n.name, got, err, want)
		}
		return k
	}
}

// replayed wants the frame refused by a node that was told of it, however old it is by
// now.
func (n *testNode) replayed(k knockcore.Knock) {
	n.Helper()
	program.Await(n.T, n.name+" knows the nonce", func() bool { return n.store.Seen(k.Replay) })
	k.Window = 10 * time.Minute
	n.admit(k, knockcore.ReasonReplay)
}

func (n *testNode) admit(k knockcore.Knock, want knockcore.Reason) []*knockcore.Grant {
	n.Helper()
	k.Client = n.Keyring().Client(k.Client.ID)
	grants, err := n.Admit(context.Background(), k)
	if got := knockcore.ReasonOf(err); got != want {
		n.Fatalf("%s: the knock gives %v (%v), want %v", n.name, got, err, want)
	}
	return grants
}

// in reports whether the address is in, by the table and by the firewall.
func (n *testNode) in(from string) bool {
	n.Helper()
	addr := netip.MustParseAddr(from)
	n.fw.mu.Lock()
	_, window := n.fw.open[knockcore.Window{Prefix: knockcore.AddrPrefix(addr), Service: "ssh"}]
	n.fw.mu.Unlock()
	query := knockcore.NewQuery([]string{"ssh"}, nil)
	return query.Match(n.State().Table, addr) && window
}

// everywhere waits until the address is in, or is not, at all nodes.
func everywhere(t *testing.T, nodes []*testNode, from string, in bool) {
	t.Helper()
	for _, n := range nodes {
		program.Await(t, n.name+" about "+from, func() bool { return n.in(from) == in })
	}
}

// awaitOpen waits until frames made now are taken again.
func (n *testNode) awaitOpen() {
	n.Helper()
	program.Await(n.T, n.name+" takes frames again", func() bool {
		l := n.store.link.Load()
		return l != nil && time.Now().UnixMilli() > l.base+2*testWindow.Milliseconds()+testWindow.Milliseconds()/2
	})
}
