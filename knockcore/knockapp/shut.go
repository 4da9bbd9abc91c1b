// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// warnShut tells of services whose firewall no knock could ever open. Grants by hand
// open it too, so that loading is not refused. All modules have been provisioned when
// the app starts.
func (a *App) warnShut() {
	if a.sharesStore() {
		return // knocks may come in at other nodes
	}
	for _, s := range a.Services {
		if s.Firewall == "" || s.Firewall == "none" || a.opens(s.Name) {
			continue
		}
		what := "no knock can open this service, which stays closed by firewall " + s.Firewall + " but for grants by hand: no source, door or HTTP handler `knock` takes knocks for it; add for example `source udp :62201`"
		if a.guards.of(s.Name)&GuardFrame != 0 {
			what += ", or leave `firewall " + s.Firewall + "` out: the frame guards it, and can't arrive at a closed port"
		}
		a.logger.Warn(what, zap.String("service", s.Name), zap.String("at", s.At))
	}
}

// opens reports whether something takes knocks that may open the service. Frames
// open their own stream only.
func (a *App) opens(service string) bool {
	return a.guards.of(service)&TakesKnocks != 0 ||
		slices.ContainsFunc(a.sources, func(s *SourceConfig) bool {
			return s.Dispatch.Methods&^knockcore.NewMethodSet(knockcore.MethodPortSequence) != 0
		}) ||
		slices.ContainsFunc(a.Doors, func(d *Door) bool { return !d.Close && slices.Contains(d.Services, service) })
}

// sharesStore reports whether grants that other nodes make count here.
func (a *App) sharesStore() bool {
	switch a.store.(type) {
	case *FileStore, *MemoryStore:
		return false
	default:
		return true
	}
}

// checkKnockPorts refuses services whose firewall closes the port of a socket that
// hears knocks. Passive sources see packets before a firewall drops them.
func (a *App) checkKnockPorts(services []*knockcore.Service) error {
	for i := range a.Services {
		if plan := a.plans[services[i].Firewall]; plan.Stands == nil || len(plan.Interfaces) > 0 {
			continue // no rules are ours, or knocks may come in where it does not gate
		}
		for _, p := range services[i].Ports {
			if in := a.hears(p); in != nil {
				return Placed(a.Services[i].At, fmt.Errorf("service %s: source %s hears knocks at %v, which firewall %s would close as one of its ports (%v): leave that port out of the service, or name another one there and to the clients, `source udp :PORT`",
					services[i].Name, in.Label, in.Reach.Ports, services[i].Firewall, p))
			}
		}
	}
	return nil
}

// hears finds a socket of a source among the ports, but for one that only this host
// reaches, which no firewall keeps from it.
func (a *App) hears(ports knockcore.PortRange) *SourceInput {
	for _, s := range a.sources {
		for i := range s.Inputs {
			if r := s.Inputs[i].Reach; r.Socket && !r.Addr.IsLoopback() && overlap(r.Ports, ports) {
				return &s.Inputs[i]
			}
		}
	}
	return nil
}
