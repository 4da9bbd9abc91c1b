// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// firewallHealth says whether the firewalls stand. Strangers may ask, so it looks
// only now and then.
type firewallHealth struct {
	checkers []firewallChecker // set before the app runs

	mu       sync.Mutex
	looked   time.Time
	problems []string
}

type firewallChecker struct {
	name string
	knockcore.Checker
}

const (
	// lookEvery is how old an answer may be.
	lookEvery = 5 * time.Second
	// lookTimeout bounds how long all firewalls may take to answer.
	lookTimeout = 2 * time.Second
)

// list tells which firewalls do not stand and could not be mended.
func (h *firewallHealth) list() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.looked) < lookEvery {
		return h.problems
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	h.problems = nil
	for _, c := range h.checkers {
		if err := c.Check(ctx); err != nil {
			h.problems = append(h.problems, "firewall "+c.name+": "+err.Error())
		}
	}
	h.looked = time.Now()
	return h.problems
}
