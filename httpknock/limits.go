// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// RateLimit bounds how often one address (IPv6: one /64) may knock. Successes and
// failures are counted apart: failing never uses up what a right key has.
type RateLimit struct {
	// Window is the time in which knocks are counted. Default: 60s.
	Window caddy.Duration `json:"window,omitempty"`

	// Successful is how many knocks may succeed in it; further ones get 429. 0 means
	// no bound. Default: 20.
	Successful *int `json:"successful,omitempty"`

	// Failed is how many knocks may fail in it; further failures get 429, and all
	// knocks are delayed, also those with a right key, which then succeed. 0 means no
	// bound. Default: 30.
	Failed *int `json:"failed,omitempty"`
}

const (
	defaultWindow     = time.Minute
	defaultSuccessful = 20
	defaultFailed     = 30
	// limitCapacity is how many addresses are remembered for each limit.
	limitCapacity = 1 << 14
	// failureDelay is how long a knock of somebody who has failed too often takes.
	failureDelay = time.Second
	// maxDelayed is how many knocks are delayed at a time; more than those are not.
	maxDelayed = 64
)

// limits count knocks; a nil Limiter has no bound.
type limits struct {
	successes, failures *knockcore.Limiter
	delayed             chan struct{}
}

func (l *RateLimit) convert() (*limits, error) {
	if l == nil {
		l = new(RateLimit)
	}
	window := time.Duration(l.Window)
	if window == 0 {
		window = defaultWindow
	}
	limiter := func(configured *int, uses int) *knockcore.Limiter {
		if configured != nil {
			uses = *configured
		}
		if uses == 0 {
			return nil
		}
		return knockcore.NewLimiter(knockcore.LimitConfig{Uses: uses, Every: window, Fixed: true, Capacity: limitCapacity})
	}
	if window < 0 || l.Successful != nil && *l.Successful < 0 || l.Failed != nil && *l.Failed < 0 {
		return nil, errors.New("rate_limit: numbers must not be negative")
	}
	return &limits{
		successes: limiter(l.Successful, defaultSuccessful), failures: limiter(l.Failed, defaultFailed),
		delayed: make(chan struct{}, maxDelayed),
	}, nil
}

// mayFail reports whether another failure of the address would be one too many; it
// counts nothing.
func (l *limits) mayFail(addr netip.Addr) bool {
	return l.failures == nil || l.failures.Allow(addr, knockcore.MethodHTTP, time.Now())
}

// fail counts a failure and reports whether it was not one too many.
func (l *limits) fail(addr netip.Addr) bool {
	return l.failures == nil || l.failures.Take(addr, knockcore.MethodHTTP, time.Now())
}

// succeed counts a success and reports whether it was not one too many.
func (l *limits) succeed(addr netip.Addr) bool {
	return l.successes == nil || l.successes.Take(addr, knockcore.MethodHTTP, time.Now())
}

// refund takes back a success that did not become one.
func (l *limits) refund(addr netip.Addr) {
	if l.successes != nil {
		l.successes.Refund(addr, knockcore.MethodHTTP, time.Now())
	}
}

// delay waits, unless too many do already.
func (l *limits) delay(ctx context.Context) {
	select {
	case l.delayed <- struct{}{}:
	default:
		return
	}
	defer func() { <-l.delayed }()
	timer := time.NewTimer(failureDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
