// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"net/netip"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

var (
	windowSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "window_seconds",
		Help:    "How long a firewall took, by firewall and what it did: open, close, ban, lift.",
		Buckets: latencyBuckets,
	}, []string{"firewall", "action"})
	firewallErrors = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "firewall_errors_total",
		Help: "What a firewall failed to do, by firewall and action: open, close, ban, lift, heal.",
	}, []string{"firewall", "action"})
	firewallHeals = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "firewall_heals_total",
		Help: "Repairs of a gate that somebody else broke, by firewall.",
	}, []string{"firewall"})
	firewallPacketsDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "firewall_packets_total"),
		"Packets to closed services since their rules were made, by firewall, service and what became of them: opened (a window let them in), shut; without a service those that bans stopped: banned. Not every firewall counts.",
		[]string{"firewall", "service", "verdict"}, nil)
)

// meteredFirewall counts what a firewall does, under the name of the
// configuration.
type meteredFirewall struct {
	knockcore.Firewall
	name string
}

func newMeteredFirewall(fw knockcore.Firewall, name string) meteredFirewall {
	// Counters that are there from the start show their first step.
	firewallHeals.WithLabelValues(name)
	initErrors(name, "open", "close", "heal")
	return meteredFirewall{fw, name}
}

func initErrors(firewall string, actions ...string) {
	for _, action := range actions {
		firewallErrors.WithLabelValues(firewall, action)
	}
}

// Open implements knockcore.Firewall.
func (m meteredFirewall) Open(ctx context.Context, windows ...knockcore.Window) error {
	begun := time.Now()
	return m.meter("open", begun, m.Firewall.Open(ctx, windows...))
}

// Close implements knockcore.Firewall.
func (m meteredFirewall) Close(ctx context.Context, windows ...knockcore.Window) error {
	begun := time.Now()
	return m.meter("close", begun, m.Firewall.Close(ctx, windows...))
}

// Trouble implements knockcore.Troubled.
func (m meteredFirewall) Trouble(w knockcore.Window) error {
	if fw, ok := m.Firewall.(knockcore.Troubled); ok {
		return fw.Trouble(w)
	}
	return nil
}

func (m meteredFirewall) meter(action string, begun time.Time, err error) error {
	return meter(m.name, action, begun, err)
}

func meter(firewall, action string, begun time.Time, err error) error {
	windowSeconds.WithLabelValues(firewall, action).Observe(time.Since(begun).Seconds())
	if err != nil {
		firewallErrors.WithLabelValues(firewall, action).Inc()
	}
	return err
}

// meteredWall counts what keeping banned addresses out costs.
type meteredWall struct {
	knockcore.Wall
	name string
}

func newMeteredWall(wall knockcore.Wall, name string) meteredWall {
	initErrors(name, "ban", "lift")
	return meteredWall{wall, name}
}

// Ban implements knockcore.Wall.
func (m meteredWall) Ban(ctx context.Context, bans ...knockcore.Ban) error {
	if len(bans) == 0 {
		return nil
	}
	begun := time.Now()
	return meter(m.name, "ban", begun, m.Wall.Ban(ctx, bans...))
}

// Lift implements knockcore.Wall.
func (m meteredWall) Lift(ctx context.Context, prefixes ...netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	begun := time.Now()
	return meter(m.name, "lift", begun, m.Wall.Lift(ctx, prefixes...))
}

// FirewallCounts are the packets that the rules of a service decided on.
type FirewallCounts struct {
	// Opened counts those that a window let in, Shut those that it kept out.
	Opened, Shut uint64
}

// countTimeout bounds asking the firewalls for their counters.
const countTimeout = 2 * time.Second

// firewallCollector shows the packet counters of the firewalls that are in use.
type firewallCollector struct{}

// Describe implements prometheus.Collector.
func (firewallCollector) Describe(c chan<- *prometheus.Desc) { c <- firewallPacketsDesc }

// Collect implements prometheus.Collector.
func (firewallCollector) Collect(c chan<- prometheus.Metric) {
	app := activeApp()
	if app == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	for name, plan := range app.plans {
		fw, ok := app.config.Firewalls[name].(meteredFirewall)
		if !ok || plan.Counts == nil {
			continue
		}
		counts, err := plan.Counts(ctx, fw.Firewall)
		if err != nil {
			continue // health tells
		}
		if n, ok := counts[banWindows]; ok {
			c <- prometheus.MustNewConstMetric(firewallPacketsDesc, prometheus.CounterValue, float64(n.Shut), name, "", "banned")
		}
		for _, s := range servicesOf(name, app.config.Services) {
			n, ok := counts[s.Name]
			if !ok {
				continue
			}
			c <- prometheus.MustNewConstMetric(firewallPacketsDesc, prometheus.CounterValue, float64(n.Opened), name, s.Name, "opened")
			c <- prometheus.MustNewConstMetric(firewallPacketsDesc, prometheus.CounterValue, float64(n.Shut), name, s.Name, "shut")
		}
	}
}

// Heal is what a firewall found broken by others, and what became of it.
type Heal struct {
	// Firewall is the name of the module: nftables, say.
	Firewall string
	// Found is what was wrong, for people.
	Found string
	// Windows is how many windows were open and are again.
	Windows int
	// Took is how long the repair took.
	Took time.Duration
	// Err is why it is not mended yet, nil if it is.
	Err error
}

// ObserveHeal logs a repair, counts it and tells those who listen to events.
// Engines outlive configurations, so the logger is Caddy's own.
func ObserveHeal(h Heal) {
	logger := caddy.Log().Named("knock.firewalls." + h.Firewall)
	if h.Err != nil {
		firewallErrors.WithLabelValues(h.Firewall, "heal").Inc()
		logger.Error("the gate was broken and can't be mended yet", zap.String("found", h.Found), zap.Error(h.Err))
		return
	}
	firewallHeals.WithLabelValues(h.Firewall).Inc()
	logger.Warn("the gate was broken and is mended", zap.String("found", h.Found), zap.Int("windows", h.Windows), zap.Duration("took", h.Took))
	tellProcess(eventRecord{Event: "healed", Time: time.Now().Round(0), Firewall: h.Firewall, Found: h.Found, Windows: h.Windows})
}
