// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are process-lived, so that counters go on over reloads. Labels come from
// fixed lists.
type metrics struct {
	answers *prometheus.CounterVec
	refused *prometheus.CounterVec
}

var processMetrics = &metrics{
	answers: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "knock", Name: "http_answers_total",
		Help: "Answers of the HTTP handler knock, by endpoint and status.",
	}, []string{"endpoint", "status"}),
	refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "knock", Name: "refused_before_tls_total",
		Help: "Connections and datagrams from addresses without a grant that the wrappers `knocked` refused.",
	}, []string{"wrapper"}),
}

func newMetrics(registry *prometheus.Registry) *metrics {
	m := processMetrics
	for _, c := range []prometheus.Collector{m.answers, m.refused} {
		// Already registered by another module of this configuration: the same one.
		if err := registry.Register(c); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			panic(err) // the collectors are fixed at compile time
		}
	}
	return m
}

// statuses are those that the handler answers with.
var statuses = []int{
	http.StatusOK, http.StatusNoContent, http.StatusSeeOther, http.StatusNotModified, http.StatusPermanentRedirect, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden,
	http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusTooEarly,
	http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
}

func (m *metrics) count(endpoint string, status int) {
	label := "other"
	if slices.Contains(statuses, status) {
		label = strconv.Itoa(status)
	}
	m.answers.WithLabelValues(endpoint, label).Inc()
}
