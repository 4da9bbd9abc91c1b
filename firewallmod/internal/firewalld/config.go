// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package firewalld keeps services closed with rich rules of firewalld, over
// D-Bus, and opens windows as rich rules with a timeout, which firewalld ends.
//
// The rules that close stand in the permanent configuration too, so that a
// reload, a restart or a boot opens nothing. Nothing here reloads firewalld: that
// would end the windows of everybody, and some versions crash in it while timed
// rules are active.
package firewalld

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
)

// DefaultPriority is that of our rich rules where the configuration has none:
// before all that a zone allows.
const DefaultPriority = -1000

// Config is how the gate stands.
type Config struct {
	// Zone is the zone that gets the rules; "" means the default zone.
	Zone string
	// Priority is that of the rich rules that open; those that close have the next.
	// -32768 to -2; 0 means DefaultPriority.
	Priority int
	// Target is the target that the zone must have: default, ACCEPT, DROP or REJECT;
	// "" means any. It can't be changed without a reload, so it is only checked.
	Target string
	// Reject refuses strangers, where drop says nothing.
	Reject bool
	// Sources are addresses and prefixes whose traffic belongs to the zone.
	Sources []netip.Prefix
	// Bus is the address of the D-Bus daemon, such as
	// unix:path=/run/dbus/system_bus_socket; "" means the system bus.
	Bus string
	// Options are those of the goroutine.
	engine.Options
}

// The errors that callers can tell apart, by errors.Is.
var (
	// ErrGone means that D-Bus or firewalld does not answer; it is tried again.
	ErrGone = errors.New("firewalld can't be reached")
	// ErrPermission means that firewalld refuses us.
	ErrPermission = errors.New("firewalld gives no permission")
	// ErrZone means that the zone is missing or is not as the configuration says.
	ErrZone = errors.New("the zone is not as configured")
)

func (c Config) priority() int {
	if c.Priority == 0 {
		return DefaultPriority
	}
	return c.Priority
}

// Identity tells gates apart that can stand beside each other.
func (c Config) Identity() string { return c.Bus + " " + c.Zone }

// Validate reports the first thing wrong with the configuration.
func (c Config) Validate() error {
	if p := c.priority(); p < -32768 || p > -2 {
		return fmt.Errorf("priority %d: expect -32768 to -2, so that the rules come before what the zone allows", p)
	}
	switch c.Target {
	case "", "default", "ACCEPT", "DROP", "REJECT":
	default:
		return fmt.Errorf("target %q: expect default, ACCEPT, DROP or REJECT", c.Target)
	}
	if len(c.Zone) > 17 || strings.ContainsAny(c.Zone, " \t\n\"/") {
		return fmt.Errorf("zone %q: expect the name of a zone, 17 characters at most", c.Zone)
	}
	if transport, _, found := strings.Cut(c.Bus, ":"); c.Bus != "" && (!found || transport == "") {
		return fmt.Errorf("bus %q: expect the address of a D-Bus daemon, such as unix:path=/run/dbus/system_bus_socket", c.Bus)
	}
	for _, p := range c.Sources {
		if !p.IsValid() {
			return errors.New("a source is not valid")
		}
	}
	return nil
}

// Accepts reports what of the services firewalld can't do.
func (c Config) Accepts(services []*knockcore.Service) error {
	for _, s := range services {
		if s.CutOnExpire {
			return fmt.Errorf("service %s: on_expire cut: firewalld lets established flows live; use drain, or firewall nftables: %w", s.Name, engine.ErrUnsupported)
		}
		if len(s.Destinations) > 0 {
			return fmt.Errorf("service %s: destinations: rich rules of a zone concern this host only; use firewall nftables: %w", s.Name, engine.ErrUnsupported)
		}
	}
	return nil
}
