// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/mholt/caddy-l4/layer4"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

func init() { caddy.RegisterModule(new(Knocked)) }

// Knocked matches a connection whose peer address holds a grant: somebody
// knocked from there, or for it. Frames inside TCP streams do not count, since
// they admit one stream only, and neither do knocks to a service that requires a
// session.
type Knocked struct {
	// Services limits the match to grants for one of these services. Default: any.
	Services []string `json:"services,omitempty"`

	// Clients limits the match to grants of one of these clients. Default: any.
	Clients []string `json:"clients,omitempty"`

	// At is where the matcher stands in the Caddyfile, as `file:line`. The
	// Caddyfile adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`

	app   *knockapp.App
	query *knockcore.Query
}

// CaddyModule returns the Caddy module information.
func (*Knocked) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "layer4.matchers.knocked", New: func() caddy.Module { return new(Knocked) }}
}

// Provision sets the matcher up.
func (m *Knocked) Provision(ctx caddy.Context) (err error) {
	if m.app, err = knockapp.Of(ctx); err != nil {
		return placed(m.At, err)
	}
	m.app.Guards(knockapp.GuardAddress, m.Services...)
	m.query = knockcore.NewQuery(m.Services, m.Clients)
	return placed(m.At, m.app.CheckNames(m.Services, m.Clients))
}

// Match looks the peer's address up.
func (m *Knocked) Match(cx *layer4.Connection) (bool, error) {
	gate := m.app.Running()
	if gate == nil {
		return false, nil
	}
	addr := knockserver.AddrPortOf(cx.RemoteAddr()).Addr()
	return m.query.Match(gate.State().Table, addr), nil
}

// Interface guards
var (
	_ caddy.Provisioner  = (*Knocked)(nil)
	_ layer4.ConnMatcher = (*Knocked)(nil)
)
