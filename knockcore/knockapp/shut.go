// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
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
