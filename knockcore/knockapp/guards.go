// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Guard is a way in which a module keeps strangers away from a service.
type Guard uint8

// The ways.
const (
	// GuardFrame asks each connection for a frame.
	GuardFrame Guard = 1 << iota
	// GuardAddress asks for a grant of the address.
	GuardAddress
	// ChoosesRoute looks at frames and keeps nobody away.
	ChoosesRoute
	// Invites gives clients keys by invitation.
	Invites
	// TakesKnocks brings knocks, which no source does, to the gatekeeper.
	TakesKnocks
)

// guards are the ways in which modules guard services, by name; "" stands for
// every service.
type guards map[string]Guard

func (g guards) of(service string) Guard { return g[""] | g[service] }

// Guards notes that the calling module, which is being provisioned, guards the
// services; none named, or "", means all. The app warns of services that nothing guards.
func (a *App) Guards(how Guard, services ...string) {
	if a.guards == nil {
		a.guards = make(guards)
	}
	if len(services) == 0 {
		services = []string{""}
	}
	for _, name := range services {
		a.guards[name] |= how
	}
}

// Guarded reports whether a module that was provisioned before does that.
func (a *App) Guarded(how Guard) bool {
	for _, all := range a.guards {
		if all&how != 0 {
			return true
		}
	}
	return false
}

// warnHelpless tells of clients that can't knock, or for nothing.
func (a *App) warnHelpless() {
	var keyless, idle []string
	for _, c := range a.config.Keyring.Clients() {
		hasKey := len(c.Secrets)+len(c.Pyknock)+len(c.Fwknop)+len(c.APIKeyHashes) > 0 || a.Guarded(Invites) ||
			slices.ContainsFunc(a.Doors, func(d *Door) bool { return d.Client == c.ID })
		if !hasKey {
			keyless = append(keyless, c.ID)
		}
		if len(c.Services) == 0 && !c.AllServices {
			idle = append(idle, c.ID)
		}
	}
	tell := func(what string, clients []string) {
		if n := len(clients); n > 0 {
			a.logger.Warn(what, zap.Strings("clients", clients[:min(n, 10)]), zap.Int("count", n))
		}
	}
	tell("nobody can knock as these clients: they have no secret or other key, no door is theirs, and no page invites; add `secret`, made by `caddy-knock keygen`", keyless)
	tell("these clients may reach nothing; add `services NAME`, or `services all`", idle)
}

// warnUnreachable tells of services that are nobody's, and of clients that a secret
// does not tell apart. A clients file may bring others at any time, and many of them,
// so that only the clients of the configuration itself are compared.
func (a *App) warnUnreachable() {
	clients := a.config.Keyring.Clients()
	var nobodys []string
	for _, s := range a.config.Services {
		if !s.Door && a.ClientsFile == "" && !slices.ContainsFunc(clients, func(c *knockcore.Client) bool { return c.MayReach(s.Name) }) {
			nobodys = append(nobodys, s.Name)
		}
	}
	if len(nobodys) > 0 {
		a.logger.Warn("no client may reach these services; add each to the `services` of a client", zap.Strings("services", nobodys))
	}
	owners := make(map[[sha256.Size]byte]string)
	for _, configured := range a.Clients {
		c := a.config.Keyring.Client(configured.ID)
		if c == nil {
			continue
		}
		for _, secret := range c.Secrets {
			sum := sha256.Sum256(secret.Bytes())
			if owner, taken := owners[sum]; taken {
				a.logger.Warn("two clients have the same secret, so that each can knock as the other; give each its own, made by `caddy-knock keygen`",
					zap.Strings("clients", []string{owner, c.ID}))
			} else {
				owners[sum] = c.ID
			}
		}
	}
}

// warnUnguarded tells of services that are not closed, or that nobody can reach.
// All modules have been provisioned when the app starts.
func (a *App) warnUnguarded() {
	for _, s := range a.config.Services {
		how := a.guards.of(s.Name) & (GuardFrame | GuardAddress)
		switch {
		case s.Door: // it has no ports
		case s.RequireSession && how&GuardFrame == 0:
			a.logger.Warn("nothing takes the frame that must follow a knock to this service (require_session); add a layer4 route with `knock "+s.Name+"`, or leave require_session out",
				zap.String("service", s.Name))
		case s.Firewall == "" && how == 0:
			a.logger.Warn("nothing guards this service: strangers reach it as if there were no knocking; add `firewall nftables` to it, a layer4 route with `knock "+s.Name+"`, or a matcher `knocked "+s.Name+"`; if another proxy asks /verify, name it in the HTTP handler `knock`",
				zap.String("service", s.Name))
		}
	}
}

// sessionMethods are those whose knocks can carry a session.
func sessionMethods() (set knockcore.MethodSet) {
	for _, m := range knockcore.AllMethods.Methods() {
		if m.CarriesSession() {
			set |= knockcore.NewMethodSet(m)
		}
	}
	return set
}

// checkSessions finds services that require a session which no knock could bring.
func (a *App) checkSessions(cfg *knockcore.Config) error {
	all := sessionMethods()
	var taken knockcore.MethodSet
	for _, s := range a.sources {
		taken |= s.Dispatch.Methods & all
	}
	for i, s := range cfg.Services {
		if !s.RequireSession {
			continue
		}
		if taken == 0 {
			return Placed(a.Services[i].At, fmt.Errorf("service %s: require_session asks for a knock with a session before the frame, and no source takes such knocks (%s); add a source, for example `source udp :62201`, or leave require_session out",
				s.Name, methodList(all)))
		}
		var reach []string
		able := false
		for _, c := range cfg.Keyring.Clients() {
			if !c.MayReach(s.Name) {
				continue
			}
			reach = append(reach, c.ID)
			able = able || len(c.Secrets) > 0 && slices.ContainsFunc(taken.Methods(), c.MayUse)
		}
		if len(reach) > 0 && !able {
			return Placed(a.Services[i].At, fmt.Errorf("service %s: require_session asks for a knock with a session, and none of its clients (%s) may send one; give one of them a `secret`, and one of the methods %s",
				s.Name, strings.Join(reach, ", "), methodList(taken)))
		}
	}
	return nil
}

func methodList(set knockcore.MethodSet) string {
	var names []string
	for _, m := range set.Methods() {
		names = append(names, m.String())
	}
	return strings.Join(names, ", ")
}
