// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/firewallmod/internal/iptables"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

func init() { caddy.RegisterModule(new(IPTables)) }

// IPTables keeps services closed with iptables and ip6tables, in chains of its
// own, and opens them for those who hold a grant. The kernel ends the windows, up
// to a second late. Linux, with CAP_NET_ADMIN; iptables-legacy needs root.
type IPTables struct {
	// Variant is which iptables, `nft` or `legacy`. Loading fails if the rules of
	// this host are in the other one. Default: what the program iptables is.
	Variant string `json:"variant,omitempty"`

	// Hook is where the gate stands: `input` is chain INPUT of table filter, where
	// windows open also what later rules would drop (such as those of ufw);
	// `prerouting` is chain PREROUTING of table mangle, which closes ports that are
	// forwarded by destination NAT too, such as those published by Docker. Default:
	// input.
	Hook string `json:"hook,omitempty"`

	// Chain is the name of the gate's chain; those of services begin with it. 15
	// characters at most. Default: CADDY_KNOCK.
	Chain string `json:"chain,omitempty"`

	// Allow lists addresses and prefixes that the gate does not concern;
	// `private_ranges` stands for the private ones. Default: none.
	Allow []string `json:"allow,omitempty"`

	// Reject lists the services that refuse strangers as a closed port of the host
	// does (TCP reset, ICMP port unreachable) instead of dropping what they send;
	// `all` stands for all of them. Hook input only. Default: none.
	Reject []string `json:"reject,omitempty"`

	// LockWait is how long a change waits for others that use iptables, 1s to 5s.
	// Default: 3s.
	LockWait caddy.Duration `json:"lock_wait,omitempty"`

	// OnExit is what happens to open windows when Caddy stops: `close` ends them,
	// `keep` lets them run out, `remove` takes the whole gate away, which opens the
	// services. Default: close.
	OnExit string `json:"on_exit,omitempty"`

	// At is where the firewall stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`

	config iptables.Config
	exit   knockcore.ExitMode
}

// CaddyModule returns the Caddy module information.
func (*IPTables) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.firewalls.iptables", New: func() caddy.Module { return new(IPTables) }}
}

// Provision checks the options.
func (t *IPTables) Provision(ctx caddy.Context) error {
	return t.convert()
}

func (t *IPTables) convert() (err error) {
	t.config = iptables.Config{
		Variant: iptables.Variant(t.Variant), Hook: iptables.Hook(t.Hook), Chain: t.Chain, LockWait: time.Duration(t.LockWait),
		Options: engine.Options{OnHeal: tellHeals("iptables")},
	}
	if slices.Contains(t.Reject, "all") {
		t.config.RejectAll = true
	} else {
		t.config.Reject = t.Reject
	}
	if t.config.Allow, err = knockapp.ParsePrefixes(t.Allow); err != nil {
		return fmt.Errorf("allow: %w", err)
	}
	if t.exit, err = parseOnExit(t.OnExit); err != nil {
		return err
	}
	return t.config.Validate()
}

// KnockFirewall implements knockapp.FirewallConverter.
func (t *IPTables) KnockFirewall() knockapp.FirewallPlan {
	return knockapp.FirewallPlan{
		Key:    "iptables " + t.config.Identity(),
		OnExit: t.exit,
		At:     t.At, Services: t.config.Reject,
		Open:      func() (knockcore.Firewall, error) { return iptables.New(t.config) },
		Configure: func(fw knockcore.Firewall) error { return fw.(*iptables.Engine).Configure(t.config) },
		Warnings:  func(fw knockcore.Firewall) []string { return fw.(*iptables.Engine).Warnings() },
		Stands:    func(ctx context.Context) (bool, error) { return iptables.Look(ctx, t.config) },
		Remove:    func(ctx context.Context) (bool, error) { return iptables.Remove(ctx, t.config) },
		Print:     func(services []*knockcore.Service) (string, error) { return iptables.Print(t.config, services) },
	}
}

// gateOptions are the names of the options that iptables and ipset share.
var gateOptions = []string{"variant", "hook", "chain", "allow", "reject", "lock_wait", "on_exit"}

// option reads one of gateOptions.
func (t *IPTables) option(name string, opts *knockapp.Options) error {
	switch name {
	case "variant":
		return opts.Text(&t.Variant)
	case "hook":
		return opts.Text(&t.Hook)
	case "chain":
		return opts.Text(&t.Chain)
	case "allow":
		return opts.List(&t.Allow)
	case "reject":
		return opts.List(&t.Reject)
	case "lock_wait":
		return opts.Duration(&t.LockWait)
	default:
		return opts.Text(&t.OnExit)
	}
}

// UnmarshalCaddyfile reads the module. Syntax:
//
//	iptables {
//		variant nft|legacy
//		hook input|prerouting
//		chain <name>
//		allow <address|prefix|private_ranges...>
//		reject all|<service...>
//		lock_wait <duration>
//		on_exit close|keep|remove
//	}
func (t *IPTables) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	t.At = knockapp.Place(d)
	if d.CountRemainingArgs() > 0 {
		return d.Errf("firewall iptables takes no argument; open a block after it")
	}
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if !slices.Contains(gateOptions, d.Val()) {
			return opts.Unknown(gateOptions...)
		}
		if err := t.option(d.Val(), opts); err != nil {
			return err
		}
		if err := t.convert(); err != nil {
			return d.WrapErr(err)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner          = (*IPTables)(nil)
	_ caddyfile.Unmarshaler      = (*IPTables)(nil)
	_ knockapp.FirewallConverter = (*IPTables)(nil)
)
