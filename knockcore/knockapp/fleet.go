// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-knock/caddy-knock/knockcore/redisstore"
)

var (
	storeSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "store_request_seconds",
		Help:    "How long requests to a shared store took, by what they did.",
		Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5},
	}, []string{"operation"})
	storeErrors = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "store_errors_total",
		Help: "What a store failed to do, by operation of a shared store, or file: the disk, counted once while it fails.",
	}, []string{"operation"})
)

// observeStore counts the requests to a shared store. The operations are an enum
// of the engine's.
func observeStore(op string, took time.Duration, err error) {
	storeSeconds.WithLabelValues(op).Observe(took.Seconds())
	if err != nil {
		storeErrors.WithLabelValues(op).Inc()
	}
}

// fleeter is a store that several nodes share.
type fleeter interface{ Stats() redisstore.Stats }

var (
	fleetUp     = prometheus.NewDesc("caddy_knock_store_up", "Whether the shared store can be used.", nil, nil)
	fleetBehind = prometheus.NewDesc("caddy_knock_fleet_changes_behind", "Changes of other nodes that this one has not taken in yet.", nil, nil)
	fleetDelay  = prometheus.NewDesc("caddy_knock_fleet_delay_seconds", "How old the last change of another node was when this one took it in.", nil, nil)
	fleetUnsent = prometheus.NewDesc("caddy_knock_store_unsent", "Changes that the shared store could not be told yet.", nil, nil)
	fleetNodes  = prometheus.NewDesc("caddy_knock_fleet_nodes", "Nodes heard of in the last ten seconds, this one included.", nil, nil)
)

// fleetCollector tells of the shared stores that are in use; without one, nothing.
type fleetCollector struct{}

// Describe implements prometheus.Collector.
func (fleetCollector) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{fleetUp, fleetBehind, fleetDelay, fleetUnsent, fleetNodes} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (fleetCollector) Collect(c chan<- prometheus.Metric) {
	done := false
	lives.Range(func(_, value any) bool {
		f, ok := value.(*live).state.Store.(fleeter)
		if !ok || done {
			return true // during a change of stores there may be two
		}
		done = true
		st := f.Stats()
		up, nodes := 0.0, 0.0
		if st.Up {
			up = 1
		}
		for _, n := range st.Nodes {
			if time.Since(n.Seen) < nodeSilent {
				nodes++
			}
		}
		for d, v := range map[*prometheus.Desc]float64{
			fleetUp: up, fleetBehind: float64(st.Behind), fleetDelay: st.Delay.Seconds(), fleetUnsent: float64(st.Unsent), fleetNodes: nodes,
		} {
			c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
		}
		return true
	})
}

// nodeSilent is after what time without a word a node is said to be silent.
const nodeSilent = 10 * time.Second

// fleetJSON is a fleet as the admin API shows it.
type fleetJSON struct {
	Up     bool   `json:"up"`
	Behind uint64 `json:"changes_behind"`
	Unsent int    `json:"unsent"`
	// ClosedUntil is until when frames may be refused because the store may have lost
	// nonces; absent if that is over.
	ClosedUntil *time.Time `json:"closed_until,omitempty"`
	Nodes       []nodeJSON `json:"nodes"`
}

type nodeJSON struct {
	Name   string `json:"name"`
	Own    bool   `json:"own,omitempty"`
	Behind uint64 `json:"changes_behind"`
	// Silent is how long ago it was heard of, in seconds.
	Silent float64 `json:"silent_seconds"`
	Items  int     `json:"grants_and_bans"`
}

// fleetOf describes the fleet of a store, nil if it has none.
func fleetOf(store any) *fleetJSON {
	f, ok := store.(fleeter)
	if !ok {
		return nil
	}
	st := f.Stats()
	shown := &fleetJSON{Up: st.Up, Behind: st.Behind, Unsent: st.Unsent, Nodes: []nodeJSON{}}
	if st.ClosedUntil.After(time.Now()) {
		shown.ClosedUntil = &st.ClosedUntil
	}
	for _, n := range st.Nodes {
		shown.Nodes = append(shown.Nodes, nodeJSON{n.Name, n.Own, n.Behind, max(0, time.Since(n.Seen).Seconds()), n.Items})
	}
	return shown
}
