// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod

import (
	"context"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

func init() { caddy.RegisterModule(new(None)) }

// None is a firewall that does nothing: for trying a configuration without
// privileges. Services that name it are not closed.
type None struct{}

// CaddyModule returns the Caddy module information.
func (*None) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.firewalls.none", New: func() caddy.Module { return new(None) }}
}

// KnockFirewall implements knockapp.FirewallConverter.
func (*None) KnockFirewall() knockapp.FirewallPlan {
	return knockapp.FirewallPlan{
		Key:  "none",
		Open: func() (knockcore.Firewall, error) { return noFirewall{}, nil },
		Warnings: func(knockcore.Firewall) []string {
			return []string{"it does nothing: services that name it are not closed"}
		},
	}
}

// UnmarshalCaddyfile reads the module, which has no options.
func (*None) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() || d.NextBlock(d.Nesting()) {
		return d.Errf("firewall none has no options")
	}
	return nil
}

// noFirewall opens and closes nothing.
type noFirewall struct{}

func (noFirewall) Setup(context.Context, []*knockcore.Service) error { return nil }

func (noFirewall) Open(context.Context, ...knockcore.Window) error { return nil }

func (noFirewall) Close(context.Context, ...knockcore.Window) error { return nil }

func (noFirewall) List(context.Context) ([]knockcore.Window, error) { return nil, nil }

func (noFirewall) Stop(context.Context, knockcore.ExitMode) error { return nil }

// Interface guards
var (
	_ caddyfile.Unmarshaler      = (*None)(nil)
	_ knockapp.FirewallConverter = (*None)(nil)
	_ knockcore.Firewall         = noFirewall{}
)
