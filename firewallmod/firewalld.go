// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod

import (
	"context"
	"fmt"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/firewallmod/internal/firewalld"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

func init() { caddy.RegisterModule(new(Firewalld)) }

// Firewalld keeps services closed with rich rules of firewalld, over D-Bus, and
// opens them for those who hold a grant. The rules that close are permanent too,
// so that no reload opens anything; firewalld ends the windows, up to two seconds
// late. It never reloads firewalld. Linux, as root or with a polkit rule.
type Firewalld struct {
	// Zone is the zone that gets the rules. It must exist. Default: firewalld's
	// default zone.
	Zone string `json:"zone,omitempty"`

	// Priority is that of the rich rules that open; those that close have the next.
	// -32768 to -2, so that they come before what the zone allows. Default: -1000.
	Priority int `json:"priority,omitempty"`

	// Target is the target that the zone must have, `default`, `ACCEPT`, `DROP` or
	// `REJECT`: loading fails if it has another. It can't be changed without a
	// reload, so the module does not change it. Default: any.
	Target string `json:"target,omitempty"`

	// DefaultAction is what strangers get, `drop` (nothing) or `reject` (an ICMP
	// error). Default: drop.
	DefaultAction string `json:"default_action,omitempty"`

	// Sources are addresses and prefixes whose traffic belongs to the zone, whatever
	// interface it comes from; `private_ranges` stands for the private ones.
	// Default: what firewalld is configured with.
	Sources []string `json:"sources,omitempty"`

	// Bus is the address of the D-Bus daemon, such as
	// unix:path=/run/dbus/system_bus_socket. Default: the system bus.
	Bus string `json:"bus,omitempty"`

	// OnExit is what happens to open windows when Caddy stops: `close` ends them,
	// `keep` lets them run out, `remove` takes all rules away, also the permanent
	// ones, which opens the services. Default: close.
	OnExit string `json:"on_exit,omitempty"`

	config firewalld.Config
	exit   knockcore.ExitMode
}

// CaddyModule returns the Caddy module information.
func (*Firewalld) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.firewalls.firewalld", New: func() caddy.Module { return new(Firewalld) }}
}

// Provision checks the options.
func (f *Firewalld) Provision(ctx caddy.Context) error {
	return f.convert()
}

func (f *Firewalld) convert() (err error) {
	f.config = firewalld.Config{
		Zone: f.Zone, Priority: f.Priority, Target: f.Target, Bus: f.Bus,
		Options: engine.Options{OnHeal: tellHeals("firewalld")},
	}
	switch f.DefaultAction {
	case "", "drop":
	case "reject":
		f.config.Reject = true
	default:
		return fmt.Errorf("default_action %q; expect drop or reject", f.DefaultAction)
	}
	if f.config.Sources, err = knockapp.ParsePrefixes(f.Sources); err != nil {
		return fmt.Errorf("sources: %w", err)
	}
	if f.exit, err = parseOnExit(f.OnExit); err != nil {
		return err
	}
	return f.config.Validate()
}

// KnockFirewall implements knockapp.FirewallConverter.
func (f *Firewalld) KnockFirewall() knockapp.FirewallPlan {
	return knockapp.FirewallPlan{
		Key:       "firewalld " + f.config.Identity(),
		OnExit:    f.exit,
		Open:      func() (knockcore.Firewall, error) { return firewalld.New(f.config) },
		Configure: func(fw knockcore.Firewall) error { return fw.(*firewalld.Engine).Configure(f.config) },
		Warnings:  func(fw knockcore.Firewall) []string { return fw.(*firewalld.Engine).Warnings() },
		Stands:    func(ctx context.Context) (bool, error) { return firewalld.Look(ctx, f.config) },
		Remove:    func(ctx context.Context) (bool, error) { return firewalld.Remove(ctx, f.config) },
		Print:     func(services []*knockcore.Service) (string, error) { return firewalld.Print(f.config, services) },
	}
}

// UnmarshalCaddyfile reads the module. Syntax:
//
//	firewalld {
//		zone <name>
//		priority <number>
//		target default|ACCEPT|DROP|REJECT
//		default_action drop|reject
//		sources <address|prefix|private_ranges...>
//		bus <address>
//		on_exit close|keep|remove
//	}
func (f *Firewalld) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.CountRemainingArgs() > 0 {
		return d.Errf("firewall firewalld takes no argument; open a block after it")
	}
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "zone":
			err = opts.Text(&f.Zone)
		case "priority":
			var text string
			if err = opts.Text(&text); err == nil {
				if f.Priority, err = strconv.Atoi(text); err != nil || f.Priority == 0 {
					err = d.Errf("priority %q; expect a number from -32768 to -2", text)
				}
			}
		case "target":
			err = opts.Text(&f.Target)
		case "default_action":
			err = opts.Text(&f.DefaultAction)
		case "sources":
			err = opts.List(&f.Sources)
		case "bus":
			err = opts.Text(&f.Bus)
		case "on_exit":
			err = opts.Text(&f.OnExit)
		default:
			err = opts.Unknown("zone", "priority", "target", "default_action", "sources", "bus", "on_exit")
		}
		if err == nil {
			if err = f.convert(); err != nil {
				err = d.WrapErr(err)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner          = (*Firewalld)(nil)
	_ caddyfile.Unmarshaler      = (*Firewalld)(nil)
	_ knockapp.FirewallConverter = (*Firewalld)(nil)
)
