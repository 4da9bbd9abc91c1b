// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const (
	// healBurst is how many repairs are made one after the other, healPause how long
	// it takes to earn another: two that fight for a firewall must not eat the
	// machine.
	healBurst = 10
	healPause = time.Second
)

// setup closes the services. Windows of those that remain stay.
func (o *owner) setup(ctx context.Context, services []*knockcore.Service) error {
	if err := o.backend.Accepts(services); err != nil {
		return err
	}
	windows := o.windows
	if windows == nil {
		var err error
		if windows, err = o.backend.List(ctx, services); err != nil {
			return err
		}
	}
	kept := Windows{}
	for k, expires := range windows.live(time.Now()) {
		for _, s := range services {
			if s.Name == k.Service {
				kept[k] = expires
			}
		}
	}
	if err := o.backend.Install(ctx, services, kept); err != nil {
		return err
	}
	o.services, o.windows, o.trouble = services, kept, nil
	return nil
}

// stop leaves the firewall as mode says.
func (o *owner) stop(ctx context.Context, mode knockcore.ExitMode) error {
	switch mode {
	case knockcore.ExitRemove:
		return o.backend.Remove(ctx)
	case knockcore.ExitClose:
		return o.backend.Install(ctx, o.services, Windows{})
	default:
		return nil
	}
}

// nextSweep is ready when the next window is over.
func (o *owner) nextSweep() <-chan time.Time {
	var next time.Time
	for _, expires := range o.windows {
		if !expires.IsZero() && (next.IsZero() || expires.Before(next)) {
			next = expires
		}
	}
	if next.IsZero() {
		return nil
	}
	if earliest := o.swept.Add(sweepPause); next.Before(earliest) {
		next = earliest
	}
	return time.After(time.Until(next))
}

// sweep takes away windows that are over: the firewall has ended them, or does
// so within its resolution.
func (o *owner) sweep() {
	o.swept = time.Now()
	over := Windows{}
	for k, expires := range o.windows {
		if !expires.IsZero() && !expires.After(o.swept) {
			over[k] = time.Time{}
		}
	}
	if err := o.apply(over); err != nil {
		o.trouble = fmt.Errorf("ending windows: %w", err)
	}
}

// look sees whether the gate stands, and mends it.
func (o *owner) look() {
	if o.windows == nil {
		return
	}
	start := time.Now()
	var reason string
	err := o.work(context.Background(), func(ctx context.Context) (err error) {
		reason, err = o.backend.Verify(ctx, o.windows)
		return err
	})
	switch {
	case err != nil:
		if reason == "" {
			reason = "it can't be looked at"
		}
		o.tell(Heal{Reason: reason, Err: err})
	case reason != "":
		o.heal(reason, start)
	default:
		o.trouble = nil
	}
}

func (o *owner) heal(reason string, start time.Time) {
	o.credit = min(healBurst, o.credit+start.Sub(o.credited).Seconds()/healPause.Seconds())
	o.credited = start
	if o.credit < 1 {
		o.tell(Heal{Reason: reason, Err: fmt.Errorf("%s: others change it all the time", reason)})
		return
	}
	o.credit--
	windows := o.windows.live(time.Now())
	err := o.work(context.Background(), func(ctx context.Context) error { return o.backend.Install(ctx, o.services, windows) })
	if err == nil {
		o.windows = windows
		o.heals.Add(1)
	}
	o.tell(Heal{Reason: reason, Windows: len(windows), Took: time.Since(start), Err: err})
}

// tell keeps the outcome and passes it on, a failure only when it is a new one.
func (o *owner) tell(h Heal) {
	known := h.Err != nil && o.trouble != nil && o.trouble.Error() == h.Err.Error()
	o.trouble = h.Err
	if o.options.OnHeal != nil && !known {
		o.options.OnHeal(h)
	}
}
