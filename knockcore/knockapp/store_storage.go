// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/storagestore"
)

func init() { caddy.RegisterModule(new(StorageStore)) }

// StorageStore keeps grants and bans in Caddy's storage, wherever that is. Caddys
// that share a storage follow each other: a grant made at one opens at all, and what
// is revoked at one is revoked at all, as soon as they look.
//
// It cannot remember spent nonces: Caddy's storage has no operation that lets exactly
// one of several callers win, so another store has to be named for that. With one that
// nodes do not share, a frame can be used once at each node until its time window has
// passed. Sessions are kept by that store, too.
type StorageStore struct {
	// Replay is the store that remembers spent nonces, and sessions. Required.
	ReplayRaw json.RawMessage `json:"replay,omitempty" caddy:"namespace=knock.stores inline_key=store"`

	// Poll is how often to look at what other nodes did; -1 means never: then nobody
	// may share the storage. Each look costs one listing of the storage, and one read
	// for each grant or ban that is new. Default: 5s.
	Poll caddy.Duration `json:"poll,omitempty"`

	// Node is this node's name, for people; each node has another one. Default: the
	// host's name.
	Node string `json:"node,omitempty"`

	// At is where the store stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`

	replay  StoreConverter
	storage certmagic.Storage
}

// CaddyModule returns the Caddy module information.
func (*StorageStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.stores.storage", New: func() caddy.Module { return new(StorageStore) }}
}

// Provision loads the store for nonces.
func (s *StorageStore) Provision(ctx caddy.Context) error {
	if s.ReplayRaw == nil {
		return errors.New("store storage keeps grants but can't remember spent nonces, since Caddy's storage has no way to let exactly one of several copies of a frame win; name a store for them, such as `store storage { replay file }`")
	}
	mod, err := ctx.LoadModule(s, "ReplayRaw")
	if err != nil {
		return fmt.Errorf("loading the store for nonces: %w", err)
	}
	replay, ok := mod.(StoreConverter)
	if _, again := mod.(*StorageStore); !ok || again {
		return Placed(s.At, errors.New("store storage: replay names a store that can't remember spent nonces; expect file, memory or redis"))
	}
	if s.Node, err = caddy.NewReplacer().ReplaceOrErr(s.Node, true, true); err != nil {
		return Placed(s.At, fmt.Errorf("store storage: node: %w", err))
	}
	if s.Node == "" {
		if s.Node, err = os.Hostname(); err != nil {
			return Placed(s.At, fmt.Errorf("store storage: finding a name for this node: %w; set `node`", err))
		}
	}
	if err := storagestore.CheckNode(s.Node); err != nil {
		return Placed(s.At, fmt.Errorf("store storage: %w", err))
	}
	if s.Poll != 0 && s.Poll != neverPoll && time.Duration(s.Poll) < leastPoll {
		return fmt.Errorf("store storage: poll %s is less than %s; `off` means never", time.Duration(s.Poll), leastPoll)
	}
	s.replay, s.storage = replay, ctx.Storage()
	return nil
}

const (
	defaultPoll = 5 * time.Second
	leastPoll   = 100 * time.Millisecond
	neverPoll   = -1
)

// KnockStore implements StoreConverter.
func (s *StorageStore) KnockStore(window time.Duration) (string, func() (knockcore.Store, error)) {
	key, open := s.replay.KnockStore(window)
	how := "as " + s.Node
	if s.Poll == neverPoll {
		how = "alone"
	}
	return fmt.Sprintf("storage %s %s, %s", storageKey(s.storage), how, key), func() (knockcore.Store, error) {
		local, err := open()
		if err != nil {
			return nil, err
		}
		opts := storagestore.Options{Storage: s.storage, Local: local, Node: s.Node, Log: logStore("storage"), Observe: observeStore}
		if s.Poll == neverPoll {
			return storagestore.Open(opts), nil
		}
		return storagestore.OpenShared(opts, s.poll()), nil
	}
}

func (s *StorageStore) poll() time.Duration {
	return time.Duration(cmp.Or(s.Poll, caddy.Duration(defaultPoll)))
}

// storageKey tells storages apart without telling how to get into them.
func storageKey(storage certmagic.Storage) string {
	if files, ok := storage.(*certmagic.FileStorage); ok {
		return files.Path
	}
	access := hmac.New(sha256.New, accessKey[:])
	if json.NewEncoder(access).Encode(storage) != nil {
		fmt.Fprintf(access, "%#v", storage)
	}
	return fmt.Sprintf("%T (%x)", storage, access.Sum(nil)[:4])
}

// Reconfigure takes a new interval, and lets the store use the storage of the
// configuration that comes: that of the one that goes may be closed with it.
func (s *StorageStore) Reconfigure(store knockcore.Store) {
	var kept *storagestore.Store
	switch store := store.(type) {
	case *storagestore.Shared:
		kept = store.Store
		store.Every(s.poll())
	case *storagestore.Store:
		kept = store
	default:
		return
	}
	kept.Use(s.storage)
	if replay, ok := s.replay.(storeReconfigurer); ok {
		replay.Reconfigure(kept.Local())
	}
}

// UnmarshalCaddyfile reads the store's options. Syntax:
//
//	storage {
//		replay <store> {
//			...
//		}
//		poll <interval>|off
//		node <name>
//	}
func (s *StorageStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	s.At = Place(d)
	if d.CountRemainingArgs() > 0 {
		return d.Errf("store storage takes no argument")
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "replay":
			if err = opts.Once(); err == nil {
				s.ReplayRaw, _, err = guestModule(d, "knock.stores", "store")
			}
		case "poll":
			err = opts.poll(&s.Poll)
		case "node":
			err = opts.Text(&s.Node)
		default:
			err = opts.Unknown("replay", "poll", "node")
		}
		if err != nil {
			return err
		}
	}
	if s.ReplayRaw == nil {
		return d.Errf("store storage keeps grants only: name a store for spent nonces, such as `replay file`")
	}
	return nil
}

// poll reads how often to look; `off` means never.
func (o *Options) poll(to *caddy.Duration) error {
	name := o.d.Val()
	var text string
	if err := o.Text(&text); err != nil {
		return err
	}
	d, err := caddy.ParseDuration(text)
	switch {
	case text == "off":
		d = neverPoll
	case err != nil || d < leastPoll:
		return o.d.Errf("option %s: %q is neither off nor a duration of %s or more, such as 5s", name, text, leastPoll)
	}
	*to = caddy.Duration(d)
	return nil
}

// Interface guards
var (
	_ StoreConverter        = (*StorageStore)(nil)
	_ storeReconfigurer     = (*StorageStore)(nil)
	_ caddy.Provisioner     = (*StorageStore)(nil)
	_ caddyfile.Unmarshaler = (*StorageStore)(nil)
)
