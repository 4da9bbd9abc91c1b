// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package firewallmod holds the modules of namespace knock.firewalls: they open
// windows in a firewall for as long as a grant lasts.
package firewallmod

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/knockcore/nft"
)

func init() { caddy.RegisterModule(new(NFTables)) }

// NFTables keeps services closed with nftables, in a table of its own, and opens
// them for those who hold a grant. The kernel times the windows, so they end
// also when nobody is left to end them; services stay closed when Caddy stops or
// crashes. Linux, with CAP_NET_ADMIN.
type NFTables struct {
	// Table is the name of the table, of family inet. Default: caddy_knock.
	Table string `json:"table,omitempty"`

	// Hook is where the gate stands: prerouting closes this host's ports and those
	// that it forwards by destination NAT, such as ports published by Docker; input
	// closes this host's own only. Default: prerouting.
	Hook string `json:"hook,omitempty"`

	// Allow lists addresses and prefixes that the gate does not concern;
	// `private_ranges` stands for the private ones. Default: none.
	Allow []string `json:"allow,omitempty"`

	// Interfaces are those whose incoming traffic is gated; a trailing * stands for
	// any ending. Default: all but loopback.
	Interfaces []string `json:"interfaces,omitempty"`

	// Reject lists the services that refuse strangers as a closed port of the host
	// does (TCP reset, ICMP port unreachable) instead of dropping what they send;
	// `all` stands for all of them. Default: none.
	Reject []string `json:"reject,omitempty"`

	// Sets are sets of yours, as `[family] table set`: the module then only adds and
	// removes addresses there, and has no table and no rule of its own.
	Sets []string `json:"sets,omitempty"`

	// OnExit is what happens to open windows when Caddy stops: `close` ends them,
	// `keep` lets them run out, `remove` takes the whole table away, which opens
	// the services. Default: close.
	OnExit string `json:"on_exit,omitempty"`

	// Protect makes the kernel refuse changes of the table by others while Caddy
	// runs, so that even `nft flush ruleset` leaves no gap (Linux 6.9). Default:
	// false.
	Protect bool `json:"protect,omitempty"`

	// At is where the firewall stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`

	config nft.Config
	exit   knockcore.ExitMode
}

// CaddyModule returns the Caddy module information.
func (*NFTables) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.firewalls.nftables", New: func() caddy.Module { return new(NFTables) }}
}

// Provision checks the options.
func (n *NFTables) Provision(ctx caddy.Context) error {
	return n.convert()
}

func (n *NFTables) convert() error {
	n.config = nft.Config{
		Table: n.Table, Hook: nft.Hook(n.Hook), Interfaces: n.Interfaces, Protect: n.Protect, OnHeal: healed,
	}
	if slices.Contains(n.Reject, "all") {
		n.config.RejectAll = true
	} else {
		n.config.Reject = n.Reject
	}
	var err error
	if n.config.Allow, err = knockapp.ParsePrefixes(n.Allow); err != nil {
		return fmt.Errorf("allow: %w", err)
	}
	for _, text := range n.Sets {
		ref, err := nft.ParseSetRef(text)
		if err != nil {
			return err
		}
		n.config.Sets = append(n.config.Sets, ref)
	}
	switch n.OnExit {
	case "", "close":
		n.exit = knockcore.ExitClose
	case "keep":
		n.exit = knockcore.ExitKeep
	case "remove":
		n.exit = knockcore.ExitRemove
	default:
		return fmt.Errorf("on_exit %q; expect close, keep or remove", n.OnExit)
	}
	return n.config.Validate()
}

func healed(h nft.Heal) {
	knockapp.ObserveHeal(knockapp.Heal{Firewall: "nftables", Found: h.Reason, Windows: h.Windows, Took: h.Took, Err: h.Err})
}

// KnockFirewall implements knockapp.FirewallConverter.
func (n *NFTables) KnockFirewall() knockapp.FirewallPlan {
	key := "nftables table " + n.Table
	if len(n.Sets) > 0 {
		key = fmt.Sprintf("nftables sets %v", n.Sets)
	}
	plan := knockapp.FirewallPlan{
		Key:    key,
		OnExit: n.exit,
		At:     n.At, Services: n.config.Reject, Interfaces: n.Interfaces,
		Open: func() (knockcore.Firewall, error) { return nft.New(n.config) },
		Configure: func(fw knockcore.Firewall) error {
			return fw.(*nft.Engine).Configure(n.config)
		},
		Warnings: func(fw knockcore.Firewall) []string { return fw.(*nft.Engine).Warnings() },
		Print:    func(services []*knockcore.Service) (string, error) { return nft.Print(n.config, services) },
		Counts: func(ctx context.Context, fw knockcore.Firewall) (map[string]knockapp.FirewallCounts, error) {
			counts, err := fw.(*nft.Engine).Counts(ctx)
			shown := make(map[string]knockapp.FirewallCounts, len(counts))
			for service, c := range counts {
				shown[service] = knockapp.FirewallCounts(c)
			}
			return shown, err
		},
	}
	plan.Ban = func(b knockapp.BanPlan) error {
		n.config.Bans = &nft.BanRules{Ports: b.Ports, Allow: b.Allow, Spare: b.Spare}
		return n.config.Validate()
	}
	if len(n.Sets) == 0 { // else no rules are ours
		plan.Stands = func(ctx context.Context) (bool, error) { return nft.Look(ctx, n.config) }
		plan.Remove = func(ctx context.Context) (bool, error) { return nft.Remove(ctx, n.config) }
	}
	return plan
}

// UnmarshalCaddyfile reads the module. Syntax:
//
//	nftables {
//		table <name>
//		hook prerouting|input
//		allow <address|prefix|private_ranges...>
//		interfaces <name...>
//		reject all|<service...>
//		set [<family>] <table> <set>
//		on_exit close|keep|remove
//		protect
//	}
func (n *NFTables) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	n.At = knockapp.Place(d)
	if d.CountRemainingArgs() > 0 {
		return d.Errf("firewall nftables takes no argument; open a block after it")
	}
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "table":
			err = opts.Text(&n.Table)
		case "hook":
			err = opts.Text(&n.Hook)
		case "allow":
			err = opts.List(&n.Allow)
		case "interfaces":
			err = opts.List(&n.Interfaces)
		case "reject":
			err = opts.List(&n.Reject)
		case "set":
			var words []string
			if err = opts.List(&words); err == nil {
				n.Sets = append(n.Sets, strings.Join(words, " "))
			}
		case "on_exit":
			err = opts.Text(&n.OnExit)
		case "protect":
			err = opts.Flag(&n.Protect)
		default:
			err = opts.Unknown("table", "hook", "allow", "interfaces", "reject", "set", "on_exit", "protect")
		}
		if err == nil {
			if err = n.convert(); err != nil {
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
	_ caddy.Provisioner          = (*NFTables)(nil)
	_ caddyfile.Unmarshaler      = (*NFTables)(nil)
	_ knockapp.FirewallConverter = (*NFTables)(nil)
)
