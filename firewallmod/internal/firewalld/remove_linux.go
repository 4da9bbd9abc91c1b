// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
)

// ErrBusy means that a process keeps the rules.
var ErrBusy = errors.New("a running caddy-knock keeps the rules: stop it first")

// Look tells whether rules that close stand in the zone, whoever keeps them.
func Look(ctx context.Context, c Config) (bool, error) {
	r := newRich(c)
	defer r.Close()
	_, ours, err := r.ours(ctx)
	return len(ours) > 0, err
}

// ours returns the zone and the rules in it that have our mark.
func (r *rich) ours(ctx context.Context) (zone string, ours []string, err error) {
	if zone, err = r.daemon.zone(ctx, r.config); err != nil {
		return "", nil, err
	}
	now, err := r.daemon.rules(ctx, zone)
	if err != nil {
		return "", nil, err
	}
	_, permanent, err := r.daemon.permanent(ctx, zone)
	_, ours = compare(append(now, permanent...), nil)
	return zone, ours, err
}

// Remove takes away what a process left behind, which opens the services, and
// says whether there was anything. A process that keeps the rules puts them back:
// Remove waits for that, and then fails.
func Remove(ctx context.Context, c Config) (bool, error) {
	r := newRich(c)
	defer r.Close()
	zone, ours, err := r.ours(ctx)
	if err != nil || len(ours) == 0 {
		return false, err
	}
	if err := r.clean(ctx, zone); err != nil {
		return false, err
	}
	select {
	case <-ctx.Done():
		return true, ctx.Err()
	case <-time.After(engine.DefaultCheckInterval + time.Second):
	}
	if _, ours, err = r.ours(ctx); err == nil && len(ours) > 0 {
		err = ErrBusy
	}
	return true, err
}
