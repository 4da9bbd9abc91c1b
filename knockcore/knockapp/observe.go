// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"errors"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// observe turns the gatekeeper's events into metrics, lines of the audit log and
// events for those who listen. It runs on the goroutine that knocks, so it never
// waits.
func (a *App) observe(e knockcore.Event) {
	now := time.Now()
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
		if entry := a.audit.Check(zapcore.InfoLevel, "granted"); entry != nil {
			entry.Write(append(grantFields(e.Grant), zap.Bool("renewed", e.Renewed))...)
		}
		// A grant for one stream ends with it; there is nothing to sweep.
		if live := a.live.Load(); live != nil && e.Grant.Scope != knockcore.ScopeConnection {
			live.wake()
		}
	case knockcore.EventExpired:
		a.metrics.ended.WithLabelValues(e.Grant.Service, "expired").Inc()
		a.audit.Info("expired", grantFields(e.Grant)...)
	case knockcore.EventRevoked:
		a.metrics.ended.WithLabelValues(e.Grant.Service, "revoked").Inc()
		a.audit.Info("revoked", append(grantFields(e.Grant), zap.String("by", e.By))...)
	case knockcore.EventBanned:
		a.metrics.bans.Inc()
		a.audit.Warn("banned", zap.Stringer("address", e.Source), zap.Stringer("method", e.Method), zap.Time("until", e.Until))
	case knockcore.EventRefused:
		reason := knockcore.ReasonOf(e.Err)
		a.metrics.knocks.WithLabelValues(e.Method.String(), reason.String()).Inc()
		class := refusalClass{e.Method, reason}
		a.logRefusal(&e, class, now)
		leftOut, due := a.refusedEvents.due(class, now)
		if !due {
			return
		}
		r := record(&e, now)
		r.Similar = leftOut
		a.tell(r)
		return
	}
	a.tell(record(&e, now))
}

// observeElsewhere logs what another node did. It is counted there.
func (a *App) observeElsewhere(e knockcore.Event) {
	node := zap.String("node", e.Node)
	now := time.Now()
	r := record(&e, now)
	r.Node = e.Node
	happened.add(r) // but no event of Caddy's: those are that node's
	switch e.Kind {
	case knockcore.EventGranted:
		if entry := a.audit.Check(zapcore.DebugLevel, "granted elsewhere"); entry != nil {
			entry.Write(append(grantFields(e.Grant), node, zap.Bool("renewed", e.Renewed))...)
		}
		if live := a.live.Load(); live != nil {
			live.wake()
		}
	case knockcore.EventRevoked:
		a.metrics.ended.WithLabelValues(e.Grant.Service, "revoked").Inc()
		a.audit.Info("revoked", append(grantFields(e.Grant), zap.String("by", e.By), node, zap.Error(e.Err))...)
	case knockcore.EventRefused:
		a.logRefusal(&e, refusalClass{e.Method, knockcore.ReasonOf(e.Err)}, now)
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

const (
	// refusalInterval is how often a class of refusals (method and reason) is logged,
	// refusalEvery how often it is an event.
	refusalInterval = time.Minute
	refusalEvery    = time.Second
)

// logRefusal logs refusals: for each method and reason a line at once, then at
// most one a minute that counts those left out. Each single one is logged at
// debug level.
func (a *App) logRefusal(e *knockcore.Event, class refusalClass, now time.Time) {
	leftOut, due := a.refusedLog.due(class, now)
	level := zapcore.DebugLevel
	if due {
		level = zapcore.InfoLevel
		if class.reason == knockcore.ReasonStoreError || class.reason == knockcore.ReasonFirewallError {
			level = zapcore.ErrorLevel
		}
	}
	entry := a.audit.Check(level, "refused")
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.Stringer("method", e.Method),
		zap.Stringer("reason", class.reason),
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
