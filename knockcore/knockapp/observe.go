// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// observe turns the gatekeeper's events into metrics and log lines. It runs on
// the goroutine that knocks, so it only counts and logs.
func (a *App) observe(e knockcore.Event) {
	if e.Node != "" {
		a.observeElsewhere(e)
		return
	}
	switch e.Kind {
	case knockcore.EventGranted:
		if e.Method != knockcore.MethodNone { // not by hand
			a.metrics.knocks.WithLabelValues(e.Method.String(), knockcore.ReasonNone.String()).Inc()
		}
		a.metrics.grants.WithLabelValues(e.Grant.Service, e.Method.String()).Inc()
		a.logger.Info("granted", append(grantFields(e.Grant), zap.Bool("renewed", e.Renewed))...)
		if live := a.live.Load(); live != nil {
			live.wake()
		}
	case knockcore.EventExpired:
		a.metrics.ended.WithLabelValues(e.Grant.Service, "expired").Inc()
		a.logger.Info("expired", grantFields(e.Grant)...)
	case knockcore.EventRevoked:
		a.metrics.ended.WithLabelValues(e.Grant.Service, "revoked").Inc()
		a.logger.Info("revoked", append(grantFields(e.Grant), zap.String("by", e.By))...)
	case knockcore.EventBanned:
		a.metrics.bans.Inc()
		a.logger.Warn("banned", zap.Stringer("address", e.Source), zap.Stringer("method", e.Method), zap.Time("until", e.Until))
	case knockcore.EventRefused:
		reason := knockcore.ReasonOf(e.Err)
		a.metrics.knocks.WithLabelValues(e.Method.String(), reason.String()).Inc()
		a.refused.log(a.logger, e, reason)
	}
}

// observeElsewhere logs what another node did. It is counted there.
func (a *App) observeElsewhere(e knockcore.Event) {
	node := zap.String("node", e.Node)
	switch e.Kind {
	case knockcore.EventGranted:
		if entry := a.logger.Check(zapcore.DebugLevel, "granted elsewhere"); entry != nil {
			entry.Write(append(grantFields(e.Grant), node, zap.Bool("renewed", e.Renewed))...)
		}
		if live := a.live.Load(); live != nil {
			live.wake()
		}
	case knockcore.EventRevoked:
		a.metrics.ended.WithLabelValues(e.Grant.Service, "revoked").Inc()
		a.logger.Info("revoked", append(grantFields(e.Grant), zap.String("by", e.By), node, zap.Error(e.Err))...)
	case knockcore.EventRefused:
		a.refused.log(a.logger, e, knockcore.ReasonOf(e.Err))
	}
}

func grantFields(g *knockcore.Grant) []zap.Field {
	return []zap.Field{
		zap.String("grant", g.ID.String()),
		zap.String("client", g.Client),
		zap.String("service", g.Service),
		zap.Stringer("method", g.Method),
		zap.Stringer("scope", g.Scope),
		zap.Stringer("source", g.Source),
		zap.Stringer("prefix", g.Prefix),
		zap.Time("expires", g.Expires),
	}
}

// refusalInterval is how often a class of refusals (method and reason) is logged.
const refusalInterval = time.Minute

// refusalLog logs refusals: for each method and reason a line at once, then at
// most one a minute that counts those left out. Each single one is logged at
// debug level. The zero value is ready.
type refusalLog struct {
	mu      sync.Mutex
	classes map[refusalClass]*refusalCount
}

type refusalClass struct {
	method knockcore.Method
	reason knockcore.Reason
}

type refusalCount struct {
	next    time.Time
	leftOut int
}

func (r *refusalLog) log(logger *zap.Logger, e knockcore.Event, reason knockcore.Reason) {
	leftOut, due := r.due(refusalClass{e.Method, reason}, time.Now())
	level := zapcore.DebugLevel
	if due {
		level = zapcore.InfoLevel
		if reason == knockcore.ReasonStoreError || reason == knockcore.ReasonFirewallError {
			level = zapcore.ErrorLevel
		}
	}
	entry := logger.Check(level, "refused")
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.Stringer("method", e.Method),
		zap.Stringer("reason", reason),
		zap.Stringer("source", e.Source),
	}
	var refusal *knockcore.Refusal
	if errors.As(e.Err, &refusal) {
		if refusal.Client != "" {
			fields = append(fields, zap.String("client", refusal.Client))
		}
		if refusal.Skew != 0 {
			fields = append(fields, zap.Duration("clock_ahead", refusal.Skew))
		}
		if refusal.Detail != "" {
			fields = append(fields, zap.String("detail", refusal.Detail))
		}
	}
	if leftOut > 0 {
		fields = append(fields, zap.Int("similar_not_logged", leftOut))
	}
	entry.Write(fields...)
}

// due reports whether the class may log a line now, and how many it left out.
func (r *refusalLog) due(c refusalClass, now time.Time) (leftOut int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	count := r.classes[c]
	if count == nil {
		if r.classes == nil {
			r.classes = make(map[refusalClass]*refusalCount)
		}
		count = new(refusalCount)
		r.classes[c] = count
	}
	if now.Before(count.next) {
		count.leftOut++
		return 0, false
	}
	leftOut, count.leftOut = count.leftOut, 0
	count.next = now.Add(refusalInterval)
	return leftOut, true
}
