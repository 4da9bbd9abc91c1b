// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const (
	metricsNamespace = "caddy"
	metricsSubsystem = "knock"
)

// metrics are process-lived, so that counters go on over reloads; they are
// registered in the registry of each configuration. Labels come from enums and
// configuration, never from the wire.
type metrics struct {
	knocks  *prometheus.CounterVec
	grants  *prometheus.CounterVec
	ended   *prometheus.CounterVec
	bans    prometheus.Counter
	took    *prometheus.HistogramVec
	live    prometheus.GaugeFunc
	nonces  prometheus.GaugeFunc
	pending prometheus.GaugeFunc
	evicted prometheus.CounterFunc
}

// latencyBuckets are in seconds: from the time of a look-up to that of a person
// who gives up.
var latencyBuckets = []float64{25e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 500e-3, 2.5, 10}

var processMetrics = &metrics{
	knocks: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "knocks_total",
		Help: "Knocks by method and reason; reason ok means granted.",
	}, []string{"method", "reason"}),
	grants: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "grants_total",
		Help: "Grants made or renewed, by service and method.",
	}, []string{"service", "method"}),
	ended: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "grants_ended_total",
		Help: "Grants that ended, by service and how: expired or revoked.",
	}, []string{"service", "how"}),
	bans: prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "bans_total",
		Help: "Bans that were made.",
	}),
	took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "admission_seconds",
		Help:    "How long it took to decide on a knock and to open what it opens, by method: spending the nonce, waiting for a session, the firewall, the store.",
		Buckets: latencyBuckets,
	}, []string{"method"}),
	live: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "grants",
		Help: "Live grants, admitted streams included.",
	}, func() float64 { return sumLive(func(s *knockcore.State) int { return s.Len() }) }),
	nonces: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "replay_nonces",
		Help: "Spent nonces that the replay guard remembers.",
	}, func() float64 {
		return sumLive(func(s *knockcore.State) int {
			if counter, ok := s.Store.(interface{ Nonces() int }); ok {
				return counter.Nonces()
			}
			return 0
		})
	}),
	pending: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "streams_pending",
		Help: "TCP streams that are undecided.",
	}, func() float64 { n, _ := sumPending(); return n }),
	evicted: prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "streams_evicted_total",
		Help: "TCP streams that were decided early, because too many were undecided.",
	}, func() float64 { _, n := sumPending(); return n }),
}

func newMetrics(registry *prometheus.Registry) *metrics {
	m := processMetrics
	for _, c := range []prometheus.Collector{
		m.knocks, m.grants, m.ended, m.bans, m.took, m.live, m.nonces, m.pending, m.evicted, commandsTotal, doorEvents, flowsCut,
		windowSeconds, firewallErrors, firewallHeals, eventsDropped, storeSeconds, storeErrors,
		sourceCollector{},
		firewallCollector{},
		stateCollector{},
		fleetCollector{},
	} {
		// Already registered by another module of this configuration: the same one.
		if err := registry.Register(c); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			panic(err) // the collectors are fixed at compile time
		}
	}
	return m
}

func (m *metrics) timed(method knockcore.Method, took time.Duration) {
	m.took.WithLabelValues(method.String()).Observe(took.Seconds())
}

func sumLive(count func(*knockcore.State) int) float64 {
	total := 0
	lives.Range(func(_, value any) bool {
		total += count(value.(*live).state)
		return true
	})
	return float64(total)
}

func sumPending() (waiting, evicted float64) {
	pendings.Lock()
	defer pendings.Unlock()
	for _, p := range pendings.bySize {
		waiting += float64(p.Len())
		evicted += float64(p.Evicted())
	}
	return waiting, evicted
}
