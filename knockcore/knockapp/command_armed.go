// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// armed is a trial without a Caddy: only the rules.
type armed struct {
	trial     *trial
	firewalls []knockcore.Firewall
}

// set closes the services.
func (a *armed) set() error {
	ctx, cancel := context.WithTimeout(context.Background(), firewallTimeout)
	defer cancel()
	for _, name := range slices.Sorted(maps.Keys(a.trial.set.plans)) {
		if a.trial.stood[name] {
			return fmt.Errorf("firewall %s: rules stand already, loaded at boot or left by a Caddy that ended; take them away with `caddy knock firewall remove`", name)
		}
		fw, err := a.trial.set.plans[name].Open()
		if err == nil {
			a.firewalls = append(a.firewalls, fw)
			err = fw.Setup(ctx, servicesOf(name, a.trial.set.services))
		}
		if err != nil {
			return fmt.Errorf("firewall %s: %w", name, err)
		}
	}
	return nil
}

// unset leaves the rules behind, or takes them away.
func (a *armed) unset(keep bool) error {
	mode := knockcore.ExitRemove
	if keep {
		mode = knockcore.ExitKeep
	}
	var errs []error
	for _, fw := range slices.Backward(a.firewalls) {
		errs = append(errs, fw.Stop(context.Background(), mode))
	}
	return errors.Join(errs...)
}
