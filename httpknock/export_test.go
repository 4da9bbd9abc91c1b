// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"strconv"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Answers is how often an endpoint answered with a status.
func Answers(endpoint string, status int) float64 {
	var m dto.Metric
	if err := processMetrics.answers.WithLabelValues(endpoint, strconv.Itoa(status)).Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

// SetBodyTimeout changes how long a body may take, and returns what undoes it.
func SetBodyTimeout(d time.Duration) func() {
	former := bodyTimeout
	bodyTimeout = d
	return func() { bodyTimeout = former }
}

// Ticket makes a ticket as the page did then.
func Ticket(key string, then time.Time) string { return newTicket(sumOf(key), then) }
