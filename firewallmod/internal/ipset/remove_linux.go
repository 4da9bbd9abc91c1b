// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package ipset

import (
	"context"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/iptables"
)

// Look tells whether the gate stands, whoever keeps it.
func Look(ctx context.Context, c Config) (bool, error) { return iptables.Look(ctx, c.Config) }

// Remove takes away what a process left behind; see [iptables.Remove].
func Remove(ctx context.Context, c Config) (bool, error) {
	stands, err := Look(ctx, c)
	if err != nil || !stands {
		return false, err
	}
	o := &own{config: c}
	defer o.Close()
	if err := o.kernel.open(); err != nil {
		return false, err
	}
	if err := o.Remove(ctx); err != nil {
		return false, err
	}
	return true, iptables.Settle(ctx, c.Config)
}
