// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// class is a set of services that share ports, and those ports. Most classes
// are one service with its ports; where the ports of two services overlap, the
// common part is a class of its own, in which a window of either opens.
type class struct {
	name     string
	services []*knockcore.Service
	ports    []knockcore.PortRange
}

// classes divides the ports of the services.
func classes(services []*knockcore.Service) []*class {
	var list []*class
	byMembers := map[string]*class{}
	for _, proto := range []knockcore.Protocol{knockcore.TCP, knockcore.UDP} {
		for _, s := range segments(services, proto) {
			members := strings.Join(s.names(), " ")
			c := byMembers[members]
			if c == nil {
				c = &class{services: s.services}
				byMembers[members] = c
				list = append(list, c)
			}
			c.ports = append(c.ports, s.ports)
		}
	}
	mixed := 0
	for _, c := range list {
		c.name = token(c.services[0].Name)
		if len(c.services) > 1 {
			mixed++
			c.name = "mixed-" + strconv.Itoa(mixed)
		}
	}
	return list
}

type segment struct {
	ports    knockcore.PortRange
	services []*knockcore.Service
}

func (s segment) names() []string {
	names := make([]string, len(s.services))
	for i, svc := range s.services {
		names[i] = svc.Name
	}
	return names
}

// segments cuts the ports of one protocol where a service's range begins or
// ends, and joins neighbours of the same services.
func segments(services []*knockcore.Service, proto knockcore.Protocol) []segment {
	var cuts []int // where something changes
	for _, s := range services {
		for _, r := range s.Ports {
			if concerns(r, proto) {
				cuts = append(cuts, int(r.Low), int(r.High)+1)
			}
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var list []segment
	for i := 0; i+1 < len(cuts); i++ {
		low, high := uint16(cuts[i]), uint16(cuts[i+1]-1)
		seg := segment{ports: knockcore.PortRange{Protocol: proto, Low: low, High: high}}
		for _, s := range services {
			if slices.ContainsFunc(s.Ports, func(r knockcore.PortRange) bool {
				return concerns(r, proto) && r.Low <= low && high <= r.High
			}) {
				seg.services = append(seg.services, s)
			}
		}
		last := len(list) - 1
		switch {
		case len(seg.services) == 0:
		case last >= 0 && int(list[last].ports.High)+1 == int(low) && slices.Equal(list[last].services, seg.services):
			list[last].ports.High = high
		default:
			list = append(list, seg)
		}
	}
	return list
}

func concerns(r knockcore.PortRange, proto knockcore.Protocol) bool {
	return r.Protocol == proto || r.Protocol == knockcore.ProtocolAny
}

// has reports whether the class has ports of the protocol.
func (c *class) has(proto knockcore.Protocol) bool {
	return slices.ContainsFunc(c.ports, func(r knockcore.PortRange) bool { return r.Protocol == proto })
}

// cuts reports whether flows end with their window: one service that cuts is
// enough, as a packet does not say which service it is for.
func (c *class) cuts() bool {
	return slices.ContainsFunc(c.services, func(s *knockcore.Service) bool { return s.CutOnExpire })
}
