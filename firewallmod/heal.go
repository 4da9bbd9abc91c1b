// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
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

// tellHeals returns a function that logs and counts repairs. Engines outlive
// configurations, so the logger is Caddy's own.
func tellHeals(firewall string) func(engine.Heal) {
	return func(h engine.Heal) {
		logger := caddy.Log().Named("knock.firewalls." + firewall)
		if h.Err != nil {
			logger.Error("the gate was broken and can't be mended yet", zap.String("found", h.Reason), zap.Error(h.Err))
			return
		}
		heals.Inc()
		logger.Warn("the gate was broken and is mended", zap.String("found", h.Reason), zap.Int("windows", h.Windows), zap.Duration("took", h.Took))
	}
}
