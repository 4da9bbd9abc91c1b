// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

// relays counts the running relays, of all configurations: relays outlive the
// one that began them.
var relays = struct {
	sync.Mutex
	clients, services map[string]int
}{clients: make(map[string]int), services: make(map[string]int)}

// mostPerClient is a quarter of the file limit if nobody says: relays cost two
// descriptors each, and what waits and strangers together may have three eighths.
func (r *Relay) mostPerClient() int {
	if r.MaxPerClient > 0 {
		return r.MaxPerClient
	}
	return 2 * knockserver.DefaultPending()
}

// enter takes a place for a relay, or says which limit is reached.
func (r *Relay) enter(client, service string) (leave func(), err error) {
	relays.Lock()
	defer relays.Unlock()
	if (client != "" || r.MaxPerClient > 0) && relays.clients[client] >= r.perClient {
		return nil, fmt.Errorf("client has %d relays, the most that max_per_client allows", relays.clients[client])
	}
	if r.MaxPerService > 0 && relays.services[service] >= r.MaxPerService {
		return nil, fmt.Errorf("service has %d relays, the most that max_per_service allows", relays.services[service])
	}
	relays.clients[client]++
	relays.services[service]++
	r.metrics.running.WithLabelValues(service).Inc()
	return func() {
		relays.Lock()
		defer relays.Unlock()
		less(relays.clients, client)
		less(relays.services, service)
		r.metrics.running.WithLabelValues(service).Dec()
	}, nil
}

func less(counts map[string]int, key string) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

// relayMetrics are process-lived, as those of the app are.
type relayMetrics struct {
	running *prometheus.GaugeVec
	ended   *prometheus.CounterVec
	bytes   *prometheus.CounterVec
}

var processRelayMetrics = &relayMetrics{
	running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "caddy", Subsystem: "knock", Name: "relays",
		Help: "Running relays, by service.",
	}, []string{"service"}),
	ended: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "knock", Name: "relays_ended_total",
		Help: "Relays that ended, by service and cause.",
	}, []string{"service", "cause"}),
	bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "knock", Name: "relay_bytes_total",
		Help: "Bytes relayed, by service and direction: up to the upstream, down to the client.",
	}, []string{"service", "direction"}),
}

func newRelayMetrics(registry *prometheus.Registry) *relayMetrics {
	m := processRelayMetrics
	for _, c := range []prometheus.Collector{m.running, m.ended, m.bytes} {
		// Already registered by another handler of this configuration: the same one.
		if err := registry.Register(c); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			panic(err) // the collectors are fixed at compile time
		}
	}
	return m
}
