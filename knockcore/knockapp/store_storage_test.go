// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/storagestore"
)

// secretStorage is a storage as modules make them: with credentials in plain sight.
type secretStorage struct {
	certmagic.Storage
	Address, Password string
}

// reconfigured is a store for nonces that counts its new settings.
type reconfigured struct {
	MemoryStore
	times int
}

func (r *reconfigured) Reconfigure(knockcore.Store) { r.times++ }

// The identity of a store is shown: it tells storages apart, but not how to get in.
func TestStorageIdentity(t *testing.T) {
	key := func(storage certmagic.Storage, node string, poll time.Duration) string {
		s := &StorageStore{Node: node, Poll: caddy.Duration(poll), replay: new(MemoryStore), storage: storage}
		key, _ := s.KnockStore(time.Minute)
		return key
	}
	one := key(&secretStorage{Address: "db", Password: "sesame"}, "a", 0)
	if strings.Contains(one, "sesame") || one != key(&secretStorage{Address: "db", Password: "sesame"}, "a", time.Minute) {
		t.Errorf("identity %q", one)
	}
	for _, other := range []string{
		key(&secretStorage{Address: "db2", Password: "sesame"}, "a", 0), key(&secretStorage{Address: "db", Password: "another"}, "a", 0),
		key(&secretStorage{Address: "db", Password: "sesame"}, "b", 0), key(&secretStorage{Address: "db", Password: "sesame"}, "a", neverPoll),
		key(&certmagic.FileStorage{Path: "/srv/caddy"}, "a", 0),
	} {
		if other == one {
			t.Errorf("%q twice", one)
		}
	}
	if file := key(&certmagic.FileStorage{Path: "/srv/caddy"}, "a", 0); !strings.Contains(file, "/srv/caddy as a") {
		t.Errorf("identity %q", file)
	}
}

// A reload changes the interval and the settings of the store for nonces.
func TestStorageReconfigure(t *testing.T) {
	replay := new(reconfigured)
	s := &StorageStore{Node: "a", Poll: caddy.Duration(time.Hour), replay: replay, storage: &certmagic.FileStorage{Path: t.TempDir()}}
	_, open := s.KnockStore(time.Minute)
	store, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s.Poll = caddy.Duration(time.Minute)
	s.Reconfigure(store)
	if got := store.(*storagestore.Shared).Stats().Poll; got != time.Minute || replay.times != 1 {
		t.Errorf("poll %v, %d new settings", got, replay.times)
	}
}
