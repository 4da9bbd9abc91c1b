// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func init() { caddy.RegisterModule(new(StorageStore)) }

// StorageStore keeps grants and bans in Caddy's storage, wherever that is. It
// cannot remember spent nonces: Caddy's storage has no operation that lets
// exactly one of several callers win, so another store has to be named for that.
type StorageStore struct {
	// Replay is the store that remembers spent nonces. Required.
	ReplayRaw json.RawMessage `json:"replay,omitempty" caddy:"namespace=knock.stores inline_key=store"`

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
		return Placed(s.At, fmt.Errorf("store storage: replay names a store that can't remember spent nonces; expect file, memory or redis"))
	}
	s.replay, s.storage = replay, ctx.Storage()
	return nil
}

// KnockStore implements StoreConverter.
func (s *StorageStore) KnockStore(window time.Duration) (string, func() (knockcore.Store, error)) {
	key, open := s.replay.KnockStore(window)
	return fmt.Sprintf("storage %v, %s", s.storage, key), func() (knockcore.Store, error) {
		replay, err := open()
		if err != nil {
			return nil, err
		}
		return &storageStore{Store: replay, storage: s.storage}, nil
	}
}

// storageTimeout bounds each operation on the storage.
const storageTimeout = 2 * time.Second

// storageStore takes grants and bans to Caddy's storage, nonces to another store.
type storageStore struct {
	knockcore.Store
	storage certmagic.Storage
}

const (
	grantsFolder = "knock/grants"
	bansFolder   = "knock/bans"
)

func (s *storageStore) put(ctx context.Context, folder, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	return s.storage.Store(ctx, path.Join(folder, name), b)
}

func (s *storageStore) drop(ctx context.Context, folder, name string) error {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	err := s.storage.Delete(ctx, path.Join(folder, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// list reads everything in a folder; what cannot be read is an error, for state
// is never lost silently.
func list[T any](ctx context.Context, s *storageStore, folder string, each func(T)) error {
	keys, err := s.storage.List(ctx, folder, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, key := range keys {
		b, err := s.storage.Load(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		var v T
		if err := json.Unmarshal(b, &v); err != nil {
			return fmt.Errorf("reading %s: %w", key, err)
		}
		each(v)
	}
	return nil
}

// SaveGrant implements knockcore.Store.
func (s *storageStore) SaveGrant(ctx context.Context, g *knockcore.Grant) error {
	return s.put(ctx, grantsFolder, g.ID.String(), g)
}

// DeleteGrant implements knockcore.Store.
func (s *storageStore) DeleteGrant(ctx context.Context, id knockcore.GrantID) error {
	return s.drop(ctx, grantsFolder, id.String())
}

// Grants implements knockcore.Store.
func (s *storageStore) Grants(ctx context.Context) ([]*knockcore.Grant, error) {
	var live []*knockcore.Grant
	now := time.Now()
	err := list(ctx, s, grantsFolder, func(g knockcore.Grant) {
		if g.Expires.After(now) {
			live = append(live, &g)
		} else {
			_ = s.DeleteGrant(ctx, g.ID)
		}
	})
	return live, err
}

// banName is a prefix as a file's name.
func banName(p netip.Prefix) string {
	return strings.NewReplacer("/", "_", ":", "-").Replace(p.String())
}

// SaveBan implements knockcore.Store.
func (s *storageStore) SaveBan(ctx context.Context, b knockcore.Ban) error {
	return s.put(ctx, bansFolder, banName(b.Prefix), b)
}

// DeleteBan implements knockcore.Store.
func (s *storageStore) DeleteBan(ctx context.Context, prefix netip.Prefix) error {
	return s.drop(ctx, bansFolder, banName(prefix))
}

// Bans implements knockcore.Store.
func (s *storageStore) Bans(ctx context.Context) ([]knockcore.Ban, error) {
	var kept []knockcore.Ban
	now := time.Now()
	err := list(ctx, s, bansFolder, func(b knockcore.Ban) {
		if b.Forgotten(now) {
			_ = s.DeleteBan(ctx, b.Prefix)
			return
		}
		kept = append(kept, b)
	})
	return kept, err
}

// Health reports the health of the store for nonces.
func (s *storageStore) Health() error {
	if checker, ok := s.Store.(interface{ Health() error }); ok {
		return checker.Health()
	}
	return nil
}

// Nonces is the number of nonces remembered.
func (s *storageStore) Nonces() int {
	if counter, ok := s.Store.(interface{ Nonces() int }); ok {
		return counter.Nonces()
	}
	return 0
}

// UnmarshalCaddyfile reads the store's options. Syntax:
//
//	storage {
//		replay <store> {
//			...
//		}
//	}
func (s *StorageStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	s.At = Place(d)
	if d.CountRemainingArgs() > 0 {
		return d.Errf("store storage takes no argument")
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if d.Val() != "replay" {
			return opts.Unknown("replay")
		}
		if err := opts.Once(); err != nil {
			return err
		}
		var err error
		if s.ReplayRaw, _, err = guestModule(d, "knock.stores", "store"); err != nil {
			return err
		}
	}
	if s.ReplayRaw == nil {
		return d.Errf("store storage keeps grants only: name a store for spent nonces, such as `replay file`")
	}
	return nil
}

// Interface guards
var (
	_ StoreConverter        = (*StorageStore)(nil)
	_ caddy.Provisioner     = (*StorageStore)(nil)
	_ caddyfile.Unmarshaler = (*StorageStore)(nil)
)
