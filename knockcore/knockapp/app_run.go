// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Start takes over the live state from the configuration before, if there was
// one, and lets knocks in.
func (a *App) Start() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Stop())
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	live, err := acquireLive(a.store, a.window(), a.MaxGrants)
	if err != nil {
		return err
	}
	a.live.Store(live)
	a.emitter.start()
	if a.config.Firewalls, err = a.startFirewalls(ctx); err != nil {
		return err
	}
	if a.bans != nil {
		bans := *a.bans
		bans.Store, bans.Wall = live.state.Store, a.wall
		a.config.Bans = knockcore.NewBans(bans)
		if err := a.config.Bans.Restore(ctx); err != nil {
			return fmt.Errorf("restoring bans: %w", err)
		}
	}
	if len(a.sources) > 0 {
		a.config.Limits = sourceLimits()
	}
	a.startCutter(live.state)
	gate, err := knockcore.NewGatekeeper(a.config, live.state)
	if err != nil {
		return err
	}
	if err := a.renewWindows(ctx, gate); err != nil {
		return err
	}
	if err := live.restore(ctx, gate); err != nil {
		return err
	}
	a.warnUnguarded()
	a.warnShut()
	a.warnHelpless()
	a.warnUnreachable()
	a.gate = gate
	gate.Activate(ctx)
	close(a.started)
	a.running.Go(a.config.Keyring.Prepare)
	woken, done := live.sweeper()
	a.running.Go(func() {
		defer done()
		a.sweep(ctx, woken)
	})
	if a.file != nil {
		a.running.Go(func() { a.followClients(ctx) })
	}
	a.lookForDevices(ctx) // somebody may have joined since this was provisioned
	a.running.Go(func() { a.followDevices(ctx) })
	if a.watch != nil {
		if err := a.watch.start(gate); err != nil {
			return err
		}
	}
	return a.startSources(gate)
}

// unopened stands for a firewall that is not open yet.
type unopened struct{ knockcore.Firewall }

// sweep ends grants when they are over.
func (a *App) sweep(ctx context.Context, woken <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-woken:
		case <-ctx.Done():
			return
		}
		timer.Reset(a.gate.Sweep(ctx))
	}
}

// Stop ends this configuration's work. Live state goes on in the next one.
func (a *App) Stop() error {
	err := a.stopSources()
	if a.watch != nil {
		err = errors.Join(err, a.watch.stop())
	}
	if a.cancel != nil {
		a.cancel()
	}
	a.running.Wait()
	if a.gate != nil {
		a.gate.Deactivate(context.Background())
	}
	a.stopCutter()
	a.emitter.close()
	err = errors.Join(err, a.stopFirewalls())
	if live := a.live.Swap(nil); live != nil {
		err = errors.Join(err, releaseLive(live))
	}
	return err
}

// Cleanup stops an app whose Start failed, and is harmless otherwise.
func (a *App) Cleanup() error {
	err := a.Stop()
	a.cleanup.Do(func() {
		for _, f := range a.atEnd {
			f()
		}
		if a.ended != nil {
			close(a.ended)
		}
	})
	return err
}

// AtEnd has f called when the configuration has ended or was given up, once for
// each name. It is for other modules while they provision.
func (a *App) AtEnd(name string, f func()) {
	if a.atEnd == nil {
		a.atEnd = make(map[string]func())
	}
	a.atEnd[name] = f
}
