// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/redisstore"
	"github.com/caddy-knock/caddy-knock/knockcore/storagestore"
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

// fleetStats are figures of a store that several nodes share.
type fleetStats struct {
	up           bool
	behind       uint64 // changes of others that are known to be there
	delay, every time.Duration
	unsent       int
	closedUntil  time.Time
	nodes        []nodeJSON
	silent       time.Duration // after what time without a word a node is said to be silent
}

// fleetStatsOf asks a store for them; ok is false for one that is not shared.
func fleetStatsOf(store knockcore.Store) (f fleetStats, ok bool) {
	switch store := store.(type) {
	case *redisstore.Store:
		st := store.Stats()
		f = fleetStats{up: st.Up, behind: st.Behind, delay: st.Delay, unsent: st.Unsent, closedUntil: st.ClosedUntil, silent: nodeSilent}
		for _, n := range st.Nodes {
			f.nodes = append(f.nodes, nodeJSON{n.Name, n.Own, &n.Behind, max(0, time.Since(n.Seen).Seconds()), n.Items})
		}
	case *storagestore.Shared:
		st := store.Stats()
		f = fleetStats{up: st.Up, behind: uint64(st.Unread), delay: st.Age, every: st.Poll, unsent: st.Unsent, silent: 3 * storagestore.Beat}
		for _, n := range st.Nodes {
			shown := nodeJSON{n.Name, n.Own, nil, max(0, time.Since(n.Seen).Seconds()), n.Items}
			if n.Own {
				shown.Behind, shown.Items = &f.behind, st.Items
			}
			f.nodes = append(f.nodes, shown)
		}
	default:
		return f, false
	}
	return f, true
}

var (
	fleetUp     = prometheus.NewDesc("caddy_knock_store_up", "Whether the shared store can be used.", nil, nil)
	fleetBehind = prometheus.NewDesc("caddy_knock_fleet_changes_behind", "Changes of other nodes that this one has not taken in yet.", nil, nil)
	fleetDelay  = prometheus.NewDesc("caddy_knock_fleet_delay_seconds", "How old the last change of another node was when this one took it in; with Caddy's storage, how long ago it was looked at.", nil, nil)
	fleetUnsent = prometheus.NewDesc("caddy_knock_store_unsent", "Changes that the shared store could not be told yet.", nil, nil)
	fleetNodes  = prometheus.NewDesc("caddy_knock_fleet_nodes", "Nodes heard of in the last ten seconds, with Caddy's storage in the last 90, this one included.", nil, nil)
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
		st, ok := fleetStatsOf(value.(*live).state.Store)
		if !ok || done {
			return true // during a change of stores there may be two
		}
		done = true
		up, nodes := 0.0, 0.0
		if st.up {
			up = 1
		}
		for _, n := range st.nodes {
			if n.Silent < st.silent.Seconds() {
				nodes++
			}
		}
		for d, v := range map[*prometheus.Desc]float64{
			fleetUp: up, fleetBehind: float64(st.behind), fleetDelay: st.delay.Seconds(), fleetUnsent: float64(st.unsent), fleetNodes: nodes,
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
	// Every is how often a storage is looked at, Looked how long ago it last was; absent
	// for a store that tells by itself.
	Every  float64 `json:"every_seconds,omitempty"`
	Looked float64 `json:"looked_seconds_ago,omitempty"`
	// Silent is after how many seconds without a word a node is said to be silent.
	Silent float64 `json:"silent_after_seconds"`
	// ClosedUntil is until when frames may be refused because the store may have lost
	// nonces; absent if that is over.
	ClosedUntil *time.Time `json:"closed_until,omitempty"`
	Nodes       []nodeJSON `json:"nodes"`
}

type nodeJSON struct {
	Name string `json:"name"`
	Own  bool   `json:"own,omitempty"`
	// Behind is absent where nodes do not tell each other.
	Behind *uint64 `json:"changes_behind,omitempty"`
	// Silent is how long ago it was heard of, in seconds.
	Silent float64 `json:"silent_seconds"`
	Items  int     `json:"grants_and_bans"`
}

// fleetOf describes the fleet of a store, nil if it has none.
func fleetOf(store knockcore.Store) *fleetJSON {
	st, ok := fleetStatsOf(store)
	if !ok {
		return nil
	}
	shown := &fleetJSON{Up: st.up, Behind: st.behind, Unsent: st.unsent, Silent: st.silent.Seconds(), Nodes: append([]nodeJSON{}, st.nodes...)}
	if st.every > 0 {
		shown.Every, shown.Looked = st.every.Seconds(), st.delay.Seconds()
	}
	if st.closedUntil.After(time.Now()) {
		shown.ClosedUntil = &st.closedUntil
	}
	return shown
}
