// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"github.com/prometheus/client_golang/prometheus"
)

var (
	healthyDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "healthy"),
		"1 if GET /knock/health would say that all is well, otherwise 0.", nil, nil)
	clientsDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "clients"),
		"Clients of the configuration, with those of the clients file.", nil, nil)
	bannedDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "banned"),
		"Prefixes that are banned.", nil, nil)
)

// stateCollector shows the state of the configuration that runs.
type stateCollector struct{}

// Describe implements prometheus.Collector.
func (stateCollector) Describe(c chan<- *prometheus.Desc) {
	c <- healthyDesc
	c <- clientsDesc
	c <- bannedDesc
}

// Collect implements prometheus.Collector.
func (stateCollector) Collect(c chan<- prometheus.Metric) {
	app := activeApp()
	if app == nil {
		return
	}
	gauge := func(desc *prometheus.Desc, value int) {
		c <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value))
	}
	healthy, banned := 0, 0
	if len(app.problems()) == 0 {
		healthy = 1
	}
	gate := app.Running()
	if bans := gate.Bans(); bans != nil {
		banned = len(bans.List(gate.Now()))
	}
	gauge(healthyDesc, healthy)
	gauge(clientsDesc, gate.Keyring().Len())
	gauge(bannedDesc, banned)
}

// knockCount is how often knocks of a method came to a result.
type knockCount struct {
	Method string `json:"method"`
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// knockCounts reads the counter of knocks.
func (m *metrics) knockCounts() []knockCount {
	counts := []knockCount{}
	families := prometheus.NewRegistry()
	if families.Register(m.knocks) != nil {
		return counts
	}
	gathered, err := families.Gather()
	if err != nil || len(gathered) == 0 {
		return counts
	}
	for _, sample := range gathered[0].GetMetric() {
		c := knockCount{Count: uint64(sample.GetCounter().GetValue())}
		for _, label := range sample.GetLabel() {
			switch label.GetName() {
			case "method":
				c.Method = label.GetValue()
			case "reason":
				c.Reason = label.GetValue()
			}
		}
		counts = append(counts, c)
	}
	return counts
}

// activeApp is the app that runs, nil if there is none.
func activeApp() *App {
	app, _ := running()
	return app
}
