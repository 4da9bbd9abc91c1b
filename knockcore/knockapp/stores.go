// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func init() { caddy.RegisterModule(new(MemoryStore)) }

// StoreConverter is implemented by the modules of namespace knock.stores: they
// hold configuration and make the engine.
type StoreConverter interface {
	// KnockStore returns the store's identity, the same for every configuration
	// that means the same store, and how to open it. open is called when the app
	// starts, once while any configuration uses the identity. window is the greatest
	// time window that a knock may be checked with.
	KnockStore(window time.Duration) (key string, open func() (knockcore.Store, error))
}

// storeReconfigurer is a StoreConverter whose store takes new settings while it is
// open.
type storeReconfigurer interface{ Reconfigure(knockcore.Store) }

// logStore writes for a store to whatever Caddy logs to at that moment: the store
// outlives configurations.
func logStore(name string) func(level, msg string, err error) {
	return func(level, msg string, err error) {
		logger := caddy.Log().Named("knock.stores." + name)
		var fields []zap.Field
		if err != nil {
			fields = append(fields, zap.Error(err))
		}
		switch level {
		case "error":
			logger.Error(msg, fields...)
		case "warn":
			logger.Warn(msg, fields...)
		default:
			logger.Info(msg, fields...)
		}
	}
}

// greatestWindow is the time window of fwknop, the longest of all methods.
const greatestWindow = 2 * time.Minute

// MemoryStore keeps spent nonces and grants in this process. They survive
// reloads, but not a restart: then all grants are gone, and a frame of the last
// time window could be accepted a second time.
type MemoryStore struct {
	// Nonces is how many spent nonces are remembered at most. When none of them is
	// older than the time window, further knocks are refused. Default: 262144.
	Nonces int `json:"nonces,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*MemoryStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.stores.memory", New: func() caddy.Module { return new(MemoryStore) }}
}

// KnockStore implements StoreConverter.
func (m *MemoryStore) KnockStore(time.Duration) (string, func() (knockcore.Store, error)) {
	return fmt.Sprintf("memory/%d", m.Nonces), func() (knockcore.Store, error) {
		return knockcore.NewMemoryStore(m.Nonces), nil
	}
}

// UnmarshalCaddyfile reads the store's options. Syntax:
//
//	memory {
//		nonces <count>
//	}
func (m *MemoryStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	if d.CountRemainingArgs() > 0 {
		return d.ArgErr()
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case "nonces":
			if err := opts.Positive(&m.Nonces); err != nil {
				return err
			}
		default:
			return opts.Unknown("nonces")
		}
	}
	return nil
}

func (a *App) loadStore(ctx caddy.Context) error {
	if a.StoreRaw == nil {
		store := new(FileStore)
		a.store = store
		return store.Provision(ctx)
	}
	mod, err := ctx.LoadModule(a, "StoreRaw")
	if err != nil {
		return fmt.Errorf("loading store module: %w", err)
	}
	store, ok := mod.(StoreConverter)
	if !ok {
		return fmt.Errorf("module %T is not a store", mod)
	}
	a.store = store
	return nil
}

// Interface guards
var (
	_ StoreConverter        = (*MemoryStore)(nil)
	_ caddyfile.Unmarshaler = (*MemoryStore)(nil)
)
