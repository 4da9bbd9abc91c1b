// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
)

// ErrBusy means that a process keeps the gate.
var ErrBusy = errors.New("a running caddy-knock keeps the rules: stop it first")

// Look tells whether the gate stands, whoever keeps it.
func Look(ctx context.Context, c Config) (bool, error) {
	var g Gate
	saved, err := g.Read(ctx, c)
	for _, s := range saved {
		if _, stands := s[c.chain()]; stands {
			return true, nil
		}
	}
	return false, err
}

// Remove takes away what a process left behind, which opens the services, and
// says whether there was anything. A process that keeps the gate puts it back:
// Remove waits for that, and then fails.
func Remove(ctx context.Context, c Config) (bool, error) {
	stands, err := Look(ctx, c)
	if err != nil || !stands {
		return false, err
	}
	var g Gate
	if err := g.Remove(ctx, c); err != nil {
		return false, err
	}
	return true, Settle(ctx, c)
}

// Settle waits until a process that keeps the gate would have put it back.
func Settle(ctx context.Context, c Config) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(engine.DefaultCheckInterval + time.Second):
	}
	stands, err := Look(ctx, c)
	if err == nil && stands {
		err = fmt.Errorf("chain %s is back: %w", c.chain(), ErrBusy)
	}
	return err
}
