// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"errors"
	"fmt"
	"time"
)

// look sees to what changed.
func (o *owner) look(c changed) {
	reason, err := o.keeper.verify()
	switch {
	case errors.Is(err, ErrStopped):
	case err != nil:
		o.healErr = err
	case reason != "":
		_ = o.heal(reason)
	case c&changedElements != 0:
		o.healErr = o.keeper.adopt()
	default:
		o.healErr = nil
	}
}

// heal repairs the table, unless that was done too often lately.
func (o *owner) heal(reason string) error {
	start := time.Now()
	o.credit = min(healBurst, o.credit+start.Sub(o.credited).Seconds()/healPause.Seconds())
	o.credited = start
	if o.credit < 1 {
		if o.healErr == nil {
			o.healErr = fmt.Errorf("%s: others change it all the time", reason)
		}
		o.monitor.again(healPause)
		return o.healErr
	}
	o.credit--
	restored, err := o.keeper.install(o.cfg, o.services)
	repeated := err != nil && o.healErr != nil && err.Error() == o.healErr.Error()
	o.healErr = err
	if err == nil {
		o.heals.Add(1)
	} else {
		o.monitor.again(healPause)
	}
	if o.cfg.OnHeal != nil && !repeated {
		o.cfg.OnHeal(Heal{Reason: reason, Windows: restored, Took: time.Since(start), Err: err})
	}
	return err
}
