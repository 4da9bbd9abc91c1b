// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package storagestore

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// folder is a storage in memory, which may fail in many ways.
type folder struct {
	mu    sync.Mutex
	keys  map[string][]byte
	fail  error             // of all requests
	late  map[string][]byte // what a listing has instead of keys, if not nil
	hang  chan struct{}     // requests to store wait for it, if not nil
	count map[string]int    // requests by kind
}

func newFolder() *folder { return &folder{keys: make(map[string][]byte), count: make(map[string]int)} }

func (f *folder) begin(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count[what]++
	return f.fail
}

func (f *folder) Store(_ context.Context, key string, value []byte) error {
	if err := f.begin("store"); err != nil {
		return err
	}
	f.mu.Lock()
	hang := f.hang
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[key] = value
	return nil
}

func (f *folder) Load(_ context.Context, key string) ([]byte, error) {
	if err := f.begin("load"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.keys[key]
	if !ok {
		return nil, fmt.Errorf("reading %s: %w", key, fs.ErrNotExist)
	}
	return b, nil
}

func (f *folder) Delete(_ context.Context, key string) error {
	if err := f.begin("delete"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys, key)
	return nil
}

func (f *folder) List(_ context.Context, path string, _ bool) (list []string, err error) {
	if err := f.begin("list"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := f.keys
	if f.late != nil {
		keys = f.late
	}
	for key := range keys {
		if strings.HasPrefix(key, path+"/") {
			list = append(list, key)
		}
	}
	if len(list) == 0 {
		return nil, fs.ErrNotExist
	}
	return append(list, path+"/grants"), nil // some storages list folders, too
}

func (f *folder) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// asked is how many requests of a kind there were.
func (f *folder) asked(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count[kind]
}

// in is how many keys there are in a folder of ours.
func (f *folder) in(name string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.keys {
		if strings.HasPrefix(key, root+"/"+name+"/") {
			n++
		}
	}
	return n
}

func (f *folder) copy() map[string][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.keys)
}

// windows is a firewall in memory.
type windows struct {
	knockcore.Firewall
	mu   sync.Mutex
	open map[string]time.Time
}

func (w *windows) Open(_ context.Context, list ...knockcore.Window) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, win := range list {
		w.open[win.Prefix.String()] = win.Expires
	}
	return nil
}

func (w *windows) Close(_ context.Context, list ...knockcore.Window) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, win := range list {
		delete(w.open, win.Prefix.String())
	}
	return nil
}

// testNode is a node without Caddy.
type testNode struct {
	*knockcore.Gatekeeper
	*testing.T
	name  string
	store *Shared
	local knockcore.Store
	bans  *knockcore.Bans
	fw    *windows
	mu    sync.Mutex
	told  []knockcore.Event
}

const poll = 5 * time.Second

func newNode(t *testing.T, name string, storage Storage, local knockcore.Store) *testNode {
	t.Helper()
	n := &testNode{T: t, name: name, fw: &windows{open: make(map[string]time.Time)}, local: local}
	if local == nil {
		n.local = knockcore.NewMemoryStore(0)
	}
	n.store = OpenShared(Options{Storage: storage, Local: n.local, Node: name}, poll)
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
	n.bans = knockcore.NewBans(knockcore.BanConfig{Failures: 1, Store: n.store})
	n.Gatekeeper, err = knockcore.NewGatekeeper(knockcore.Config{
		Keyring: ring, SessionWait: time.Second, Bans: n.bans,
		Services: []*knockcore.Service{
			{Name: "ssh", Ports: port("tcp/22"), Firewall: "fw", OpenFor: time.Hour, MaxOpen: 24 * time.Hour},
			{Name: "vault", Ports: port("tcp/8200"), RequireSession: true, OpenFor: time.Hour},
		},
		Firewalls: map[string]knockcore.Firewall{"fw": n.fw},
		Observer: func(e knockcore.Event) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.told = append(n.told, e)
		},
	}, knockcore.NewState(n.store, 0))
	if err != nil {
		t.Fatal(err)
	}
	n.Activate(t.Context())
	synctest.Wait()
	return n
}

// grant makes a grant at the node.
func (n *testNode) grant(prefix string, length time.Duration) *knockcore.Grant {
	n.Helper()
	g, err := n.GrantByHand(n.Context(), "alice", "ssh", netip.MustParsePrefix(prefix), length)
	if err != nil {
		n.Fatal(err)
	}
	return g
}

func (n *testNode) revoke(sel knockcore.Selection) {
	n.Helper()
	if _, errs := n.RevokeAll(n.Context(), sel, "test"); errs != nil {
		n.Error(errs)
	}
}

// end is until when the window of a prefix is open, zero if it is not. The table
// of those who are let in must say the same.
func (n *testNode) end(prefix string) time.Time {
	n.Helper()
	n.fw.mu.Lock()
	defer n.fw.mu.Unlock()
	end := n.fw.open[prefix]
	in := knockcore.NewQuery([]string{"ssh"}, nil).Match(n.State().Table, netip.MustParsePrefix(prefix).Addr())
	if in != end.After(time.Now()) {
		n.Errorf("%s: the table says %v, the firewall %v", n.name, in, end)
	}
	return end
}

// looks lets all nodes look at the storage.
func looks() { time.Sleep(poll + time.Second); synctest.Wait() }

// everywhere wants the prefix to be let in, or not, at all nodes.
func everywhere(t *testing.T, nodes []*testNode, prefix string, in bool) {
	t.Helper()
	for _, n := range nodes {
		if got := n.end(prefix).After(time.Now()); got != in {
			t.Errorf("%s at %s: in %v, want %v", prefix, n.name, got, in)
		}
	}
}

// test runs a test with a clock of its own.
func test(t *testing.T, run func(t *testing.T, storage *folder, nodes []*testNode)) {
	synctest.Test(t, func(t *testing.T) {
		storage := newFolder()
		var nodes []*testNode
		for _, name := range []string{"a", "b", "c"} {
			nodes = append(nodes, newNode(t, name, storage, nil))
		}
		run(t, storage, nodes)
		for _, n := range nodes {
			if err := n.store.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
