// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/cut"
)

var flowsCut = prometheus.NewCounterVec(prometheus.CounterOpts{
	Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "flows_cut_total",
	Help: "Established flows that were ended with their grant, by what was ended: socket or conntrack; error counts looks that failed.",
}, []string{"what"})

// startCutter starts what ends established flows, if a service wants that. What
// this process cannot do is said here, once.
func (a *App) startCutter(state *knockcore.State) {
	if !slices.ContainsFunc(a.config.Services, func(s *knockcore.Service) bool { return s.CutOnExpire }) {
		return
	}
	if err := cut.Missing(0); err != nil {
		a.cutMissing = err
		a.logger.Warn("on_expire cut: not all established connections will end with their grant; admitted streams do, and a firewall that gates every packet stalls the others. Give Caddy CAP_NET_ADMIN (AmbientCapabilities= in its systemd unit) on a kernel with conntrack and SOCK_DESTROY",
			zap.Error(err))
	}
	a.cutter = cut.New(cut.Config{Holds: state.Holds, Done: a.observeCut})
	a.config.Cutter = a.cutter
}

func (a *App) observeCut(r cut.Result) {
	flowsCut.WithLabelValues("socket").Add(float64(r.Sockets))
	flowsCut.WithLabelValues("conntrack").Add(float64(r.Entries))
	if r.Err != nil {
		flowsCut.WithLabelValues("error").Inc()
	}
	switch {
	case r.Err != nil && a.cutMissing == nil:
		a.logger.Error("ending established connections", zap.Error(r.Err))
	case r.Sockets+r.Entries > 0:
		a.logger.Info("ended established connections of grants that are over",
			zap.Int("sockets", r.Sockets), zap.Int("conntrack_entries", r.Entries), zap.Duration("took", r.Took))
	}
}

func (a *App) stopCutter() {
	if a.cutter != nil {
		a.cutter.Close()
	}
}
