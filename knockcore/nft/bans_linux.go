// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"context"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Ban implements knockcore.Wall: it keeps the prefixes out of the ports of
// Config.Bans until their bans end, by the kernel's clock.
func (e *Engine) Ban(ctx context.Context, bans ...knockcore.Ban) error {
	windows := make([]knockcore.Window, 0, len(bans))
	for _, b := range bans {
		if !b.Over(time.Now()) {
			windows = append(windows, knockcore.Window{Prefix: b.Prefix, Service: bannedService, Expires: b.Until})
		}
	}
	return e.change(ctx, windows, false)
}

// Lift implements knockcore.Wall.
func (e *Engine) Lift(ctx context.Context, prefixes ...netip.Prefix) error {
	windows := make([]knockcore.Window, 0, len(prefixes))
	for _, p := range prefixes {
		windows = append(windows, knockcore.Window{Prefix: p, Service: bannedService})
	}
	return e.change(ctx, windows, true)
}

// Banned implements knockcore.Wall: it asks the kernel. What somebody else put
// there for good is not among them.
func (e *Engine) Banned(ctx context.Context) (bans []knockcore.Ban, err error) {
	err = e.run(ctx, func(o *owner) error {
		windows, err := o.keeper.list()
		for _, w := range windows {
			if w.Service == bannedService && !w.Expires.IsZero() {
				bans = append(bans, knockcore.Ban{Prefix: w.Prefix, Until: w.Expires, Strikes: 1})
			}
		}
		return err
	})
	return bans, err
}
