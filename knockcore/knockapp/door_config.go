// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// unmarshalDoor reads a door. Syntax:
//
//	door <name> {
//		client        <id>
//		sequence      <step...>
//		sequence_file <path>
//		flags         <flag...>
//		within        <duration>
//		idle          <duration>
//		strict
//		target        <address...>
//		service       <name...>
//		close
//		open_for      <duration>
//		start         <program> [<argument...>]
//		stop          <program> [<argument...>]
//		start_ipv6    off|<program> [<argument...>]
//		stop_ipv6     off|<program> [<argument...>]
//		setup         <program> [<argument...>]
//		teardown      <program> [<argument...>]
//	}
func (a *App) unmarshalDoor(d *caddyfile.Dispenser) error {
	door := &Door{At: Place(d)}
	if d.CountRemainingArgs() != 1 {
		return d.Errf("door takes one argument, its name, got %d", d.CountRemainingArgs())
	}
	d.NextArg()
	door.Name = d.Val()
	if err := knockcore.ValidateID(door.Name); err != nil {
		return d.Errf("door %q: %v", door.Name, err)
	}
	if i := slices.IndexFunc(a.Doors, func(o *Door) bool { return o.Name == door.Name }); i >= 0 {
		return d.Errf("door %s is defined twice (first at %s); give one another name", door.Name, a.Doors[i].At)
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := door.unmarshalOption(opts, d); err != nil {
			return err
		}
	}
	a.Doors = append(a.Doors, door)
	return nil
}

func (door *Door) unmarshalOption(opts *Options, d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "client":
		return opts.Text(&door.Client)
	case "sequence":
		first := len(door.Sequence)
		if err := opts.List(&door.Sequence); err != nil {
			return err
		}
		for _, text := range door.Sequence[first:] {
			if _, err := parseStep(text); err != nil {
				return d.WrapErr(err)
			}
		}
		return nil
	case "sequence_file":
		return opts.Text(&door.SequenceFile)
	case "flags":
		var words []string
		if err := opts.List(&words); err != nil {
			return err
		}
		for _, word := range words {
			if door.Flags != "" {
				door.Flags += ","
			}
			door.Flags += word
		}
		_, err := parseFlags(door.Flags)
		return wrapErr(d, err)
	case "within":
		return opts.Duration(&door.Within)
	case "idle":
		return opts.Duration(&door.Idle)
	case "strict":
		return opts.Flag(&door.Strict)
	case "target":
		return opts.List(&door.Targets)
	case "service":
		return opts.List(&door.Services)
	case "close":
		return opts.Flag(&door.Close)
	case "open_for":
		return opts.Duration(&door.OpenFor)
	case "start":
		return opts.Command(&door.Start, true)
	case "stop":
		return opts.Command(&door.Stop, true)
	case "start_ipv6":
		return opts.CommandOrOff(&door.StartIPv6, d)
	case "stop_ipv6":
		return opts.CommandOrOff(&door.StopIPv6, d)
	case "setup":
		return opts.Command(&door.Setup, false)
	case "teardown":
		return opts.Command(&door.Teardown, false)
	default:
		return opts.Unknown("client", "sequence", "sequence_file", "flags", "within", "idle", "strict", "target", "service", "close",
			"open_for", "start", "stop", "start_ipv6", "stop_ipv6", "setup", "teardown")
	}
}

// loadDoors reads the doors. What their commands belong to becomes a service.
func (a *App) loadDoors(cfg *knockcore.Config) error {
	seen := make(map[string]bool)
	for _, d := range a.Doors {
		door, err := d.convert()
		if err == nil && seen[d.Name] {
			err = fmt.Errorf("it is defined twice; give one another name")
		}
		if err != nil {
			return Placed(d.At, fmt.Errorf("door %s: %w", d.Name, err))
		}
		seen[d.Name] = true
		a.doors = append(a.doors, door)
		if s := d.service(); s != nil {
			cfg.Services = append(cfg.Services, s)
		}
	}
	return nil
}

// doorServicesOf lists the services that stand for the commands of a client's
// doors, which it may reach.
func (a *App) doorServicesOf(client string) (names []string) {
	for _, d := range a.Doors {
		if s := d.service(); d.Client == client && s != nil {
			names = append(names, s.Name)
		}
	}
	return names
}

// checkDoors checks the doors against clients and services, and says what is weak
// about them.
func (a *App) checkDoors(cfg *knockcore.Config) error {
	if len(a.doors) == 0 {
		return nil
	}
	if cfg.Methods != 0 && !cfg.Methods.Has(knockcore.MethodPortSequence) {
		return Placed(a.Doors[0].At, fmt.Errorf("door %s: method port-sequence is not among the methods that are enabled", a.Doors[0].Name))
	}
	for _, d := range a.Doors {
		c := cfg.Keyring.Client(d.Client)
		if c == nil && a.ClientsFile == "" {
			return Placed(d.At, fmt.Errorf("door %s: there is no client %q; define it with `client %s`", d.Name, d.Client, d.Client))
		}
		for _, name := range d.Services {
			if !slices.ContainsFunc(cfg.Services, func(s *knockcore.Service) bool { return s.Name == name }) {
				return Placed(d.At, fmt.Errorf("door %s: %w", d.Name, noService(name)))
			}
			if c != nil && !c.MayReach(name) {
				return Placed(d.At, fmt.Errorf("door %s: client %s may not reach service %s; add it to its `services`", d.Name, d.Client, name))
			}
		}
		if c != nil && !c.MayUse(knockcore.MethodPortSequence) {
			return Placed(d.At, fmt.Errorf("door %s: client %s may not use port-sequence; add it to its `methods`", d.Name, d.Client))
		}
		if len(d.Services) == 0 && !d.hasCommands() {
			a.logger.Warn("door " + d.Name + " opens nothing but " + doorService(d.Name) + "; name a service or a start command")
		}
	}
	return nil
}
