// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod

import (
	"context"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/ipset"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

func init() { caddy.RegisterModule(new(IPSet)) }

// IPSet keeps services closed with iptables as firewall iptables does, and opens
// windows as entries with a timeout in sets of ipset: for many windows, and for
// sets of the operator's. The kernel ends the windows, up to a second late.
type IPSet struct {
	// The options of the gate are those of firewall iptables.
	IPTables

	// Sets are sets of yours, one for each address family at most, of type hash:ip or
	// hash:net and with timeouts: the module then only adds and removes entries
	// there, and has no set and no rule of its own. Default: none.
	Sets []string `json:"sets,omitempty"`

	sets ipset.Config
}

// CaddyModule returns the Caddy module information.
func (*IPSet) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.firewalls.ipset", New: func() caddy.Module { return new(IPSet) }}
}

// Provision checks the options.
func (s *IPSet) Provision(ctx caddy.Context) error {
	return s.convert()
}

func (s *IPSet) convert() error {
	if err := s.IPTables.convert(); err != nil {
		return err
	}
	s.sets = ipset.Config{Config: s.config, Sets: s.Sets}
	s.sets.OnHeal = tellHeals("ipset")
	return s.sets.Validate()
}

// KnockFirewall implements knockapp.FirewallConverter.
func (s *IPSet) KnockFirewall() knockapp.FirewallPlan {
	plan := knockapp.FirewallPlan{
		Key:    "ipset " + s.sets.Identity(),
		OnExit: s.exit,
		At:     s.At, Services: s.config.Reject,
		Open:      func() (knockcore.Firewall, error) { return ipset.New(s.sets) },
		Configure: func(fw knockcore.Firewall) error { return fw.(*ipset.Engine).Configure(s.sets) },
		Warnings:  func(fw knockcore.Firewall) []string { return fw.(*ipset.Engine).Warnings() },
		Print:     func(services []*knockcore.Service) (string, error) { return ipset.Print(s.sets, services) },
	}
	if len(s.Sets) == 0 { // else no rules are ours
		plan.Stands = func(ctx context.Context) (bool, error) { return ipset.Look(ctx, s.sets) }
		plan.Remove = func(ctx context.Context) (bool, error) { return ipset.Remove(ctx, s.sets) }
	}
	return plan
}

// UnmarshalCaddyfile reads the module. Syntax:
//
//	ipset {
//		set <name>
//		variant nft|legacy
//		hook input|prerouting
//		chain <name>
//		allow <address|prefix|private_ranges...>
//		reject all|<service...>
//		lock_wait <duration>
//		on_exit close|keep|remove
//	}
func (s *IPSet) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	s.At = knockapp.Place(d)
	if d.CountRemainingArgs() > 0 {
		return d.Errf("firewall ipset takes no argument; open a block after it")
	}
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch name := d.Val(); {
		case name == "set":
			err = opts.List(&s.Sets)
		case slices.Contains(gateOptions, name):
			err = s.option(name, opts)
		default:
			return opts.Unknown(append([]string{"set"}, gateOptions...)...)
		}
		if err != nil {
			return err
		}
		if err := s.convert(); err != nil {
			return d.WrapErr(err)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner          = (*IPSet)(nil)
	_ caddyfile.Unmarshaler      = (*IPSet)(nil)
	_ knockapp.FirewallConverter = (*IPSet)(nil)
)
