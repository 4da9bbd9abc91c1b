// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod

import (
	"fmt"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

// parseOnExit reads option on_exit; "" means close.
func parseOnExit(text string) (knockcore.ExitMode, error) {
	if text == "" {
		return knockcore.ExitClose, nil
	}
	mode, err := knockcore.ParseExitMode(text)
	if err != nil {
		return 0, fmt.Errorf("on_exit %q; expect close, keep or remove", text)
	}
	return mode, nil
}

// tellHeals returns a function that reports repairs.
func tellHeals(firewall string) func(engine.Heal) {
	return func(h engine.Heal) {
		knockapp.ObserveHeal(knockapp.Heal{Firewall: firewall, Found: h.Reason, Windows: h.Windows, Took: h.Took, Err: h.Err})
	}
}
