// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
)

// synMethods are the methods whose knocks are SYNs to the ports of services.
var synMethods = knockcore.NewMethodSet(knockcore.MethodTCPSYN, knockcore.MethodTCPSYNSeq)

// knockFilter is what a passive source has to see for its methods.
func (s *SourceConfig) knockFilter(services []*knockcore.Service) source.Filter {
	var f source.Filter
	if s.Dispatch.Methods&synMethods != 0 {
		for _, port := range source.ProtectedPorts(services) {
			f = append(f, source.SYNTest(knockcore.PortRange{Protocol: knockcore.TCP, Low: port, High: port}))
		}
	}
	return f
}
