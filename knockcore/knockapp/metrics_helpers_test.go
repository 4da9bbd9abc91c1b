// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"github.com/caddyserver/caddy/v2"
)

// knocksOf is the counter of knocks by method and reason, of all configurations
// so far.
func knocksOf(method, reason string) uint64 {
	ctx := caddy.ActiveContext()
	families, err := ctx.GetMetricsRegistry().Gather()
	if err != nil {
		return 0
	}
	for _, f := range families {
		if f.GetName() != "caddy_knock_knocks_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["method"] == method && labels["reason"] == reason {
				return uint64(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}
