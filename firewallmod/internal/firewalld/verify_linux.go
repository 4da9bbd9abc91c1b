// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
)

// slack is how late firewalld's timers may be.
const slack = 3 * time.Second

func (r *rich) Verify(ctx context.Context, windows engine.Windows) (string, error) {
	zone, err := r.daemon.zone(ctx, r.config)
	if err != nil {
		return "", err
	}
	if zone != r.zone {
		return fmt.Sprintf("the default zone is %s now", zone), nil
	}
	var gate, all []rule
	now := time.Now()
	for _, s := range r.services {
		gate = append(gate, r.config.gateRules(s)...)
	}
	for k, expires := range windows {
		all = append(all, r.config.windowRules(r.service(k.Service), k.Prefix, expires)...)
	}
	rules, err := r.daemon.rules(ctx, zone)
	if err != nil {
		return "", err
	}
	missing, extra := compare(rules, append(gate, all...))
	for _, rule := range missing {
		_, expires, timed := rule.window()
		if !timed {
			return fmt.Sprintf("rules that close are gone from zone %s", zone), nil
		}
		if expires.Sub(now) > slack {
			return fmt.Sprintf("windows are gone from zone %s", zone), nil
		}
	}
	for _, text := range extra {
		rule, _ := parseRule(text)
		if _, expires, timed := rule.window(); !timed || now.Sub(expires) > -slack {
			return fmt.Sprintf("zone %s has rules with our mark that are not ours", zone), nil
		}
	}
	if _, permanent, err := r.daemon.permanent(ctx, zone); err != nil {
		return "", err
	} else if missing, extra := compare(permanent, gate); len(missing)+len(extra) > 0 {
		return fmt.Sprintf("rules that close are gone from the permanent configuration of zone %s", zone), nil
	}
	return "", nil
}

// clean takes all that is ours from a zone.
func (r *rich) clean(ctx context.Context, zone string) error {
	now, err := r.daemon.rules(ctx, zone)
	if err != nil {
		return err
	}
	_, extra := compare(now, nil)
	for _, text := range extra {
		if err := r.daemon.remove(ctx, zone, text); err != nil {
			return err
		}
	}
	path, now, err := r.daemon.permanent(ctx, zone)
	if err != nil {
		return err
	}
	_, extra = compare(now, nil)
	for _, text := range extra {
		if err := r.daemon.removePermanent(ctx, path, text); err != nil {
			return err
		}
	}
	return r.daemon.unbind(ctx, zone, path, r.config.Sources)
}
