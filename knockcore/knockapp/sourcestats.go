// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-knock/caddy-knock/knockcore/source"
)

// sourceStats are the counters of the sources of one label. They are
// process-lived, as metrics are, and as few as addresses were ever configured.
type sourceStats struct {
	source.Stats

	mu   sync.Mutex
	lost uint64 // before they could be read, of sources that are closed
	open map[source.Source]struct{}
}

func (s *sourceStats) add(o source.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[o] = struct{}{}
}

func (s *sourceStats) remove(o source.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[o]; ok {
		delete(s.open, o)
		s.lost += o.Dropped()
	}
}

func (s *sourceStats) lostUnread() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := s.lost
	for o := range s.open {
		lost += o.Dropped()
	}
	return lost
}

var allSourceStats struct {
	sync.Mutex
	byLabel map[string]*sourceStats
}

// statsOf returns the counters of a label.
func statsOf(label string) *sourceStats {
	allSourceStats.Lock()
	defer allSourceStats.Unlock()
	s := allSourceStats.byLabel[label]
	if s == nil {
		s = &sourceStats{open: make(map[source.Source]struct{})}
		if allSourceStats.byLabel == nil {
			allSourceStats.byLabel = make(map[string]*sourceStats)
		}
		allSourceStats.byLabel[label] = s
	}
	return s
}

// sourceCollector shows the counters of sources.
type sourceCollector struct{}

var (
	datagramsDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "datagrams_total"),
		"Datagrams that were read, by source.", []string{"source"}, nil)
	datagramsDroppedDesc = prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, "datagrams_dropped_total"),
		"Datagrams that nobody looked at, by source and why: socket_full, queue_full, limited, stopped.", []string{"source", "why"}, nil)
)

// Describe implements prometheus.Collector.
func (sourceCollector) Describe(c chan<- *prometheus.Desc) {
	c <- datagramsDesc
	c <- datagramsDroppedDesc
}

// Collect implements prometheus.Collector.
func (sourceCollector) Collect(c chan<- prometheus.Metric) {
	allSourceStats.Lock()
	defer allSourceStats.Unlock()
	for label, s := range allSourceStats.byLabel {
		c <- prometheus.MustNewConstMetric(datagramsDesc, prometheus.CounterValue, float64(s.Received.Load()), label)
		for _, dropped := range []struct {
			why   string
			count uint64
		}{
			{"socket_full", s.lostUnread()},
			{"queue_full", s.Full.Load()},
			{"limited", s.Limited.Load()},
			{"stopped", s.Unattended.Load()},
		} {
			c <- prometheus.MustNewConstMetric(datagramsDroppedDesc, prometheus.CounterValue, float64(dropped.count), label, dropped.why)
		}
	}
}
