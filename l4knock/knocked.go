// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/mholt/caddy-l4/layer4"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

func init() { caddy.RegisterModule(new(Knocked)) }

// Knocked matches a connection whose peer address holds a grant: somebody
// knocked from there, or for it. Frames inside TCP streams do not count, since
// they admit one stream only, and neither do knocks to a service that requires a
// session.
type Knocked struct {
	knockapp.Knocked
}

// CaddyModule returns the Caddy module information.
func (*Knocked) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "layer4.matchers.knocked", New: func() caddy.Module { return new(Knocked) }}
}

// Provision sets the matcher up.
func (m *Knocked) Provision(ctx caddy.Context) error {
	if err := m.Knocked.Provision(ctx); err != nil {
		return err
	}
	closeOrphans(ctx, m.App)
	return nil
}

// UnmarshalCaddyfile reads the matcher.
func (m *Knocked) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return m.Unmarshal(d, nil) }

// Match looks the peer's address up.
func (m *Knocked) Match(cx *layer4.Connection) (bool, error) {
	return m.Holds(m.App.Running(), knockserver.AddrPortOf(cx.RemoteAddr()).Addr()), nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Knocked)(nil)
	_ caddyfile.Unmarshaler = (*Knocked)(nil)
	_ layer4.ConnMatcher    = (*Knocked)(nil)
)
