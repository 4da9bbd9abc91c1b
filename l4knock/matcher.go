// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/mholt/caddy-l4/layer4"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

func init() { caddy.RegisterModule(new(Matcher)) }

// Matcher matches a stream that a valid authentication frame leads: authentic,
// in time, not accepted before, and for something that its client may reach. It
// changes nothing, so it may be asked any number of times; the frame is spent by
// the handler `knock`, which must come first in the route.
//
// It is for choosing routes by client, service or method. caddy-l4 itself ends
// streams on which matching takes longer than `matching_timeout` or that end
// while it matches, before any cover could answer; where that matters, use the
// handler with `admit` instead.
type Matcher struct {
	Frames

	// Services limits the match to frames for one of these services; a frame is for
	// the service that lists its port. Default: any.
	Services []string `json:"services,omitempty"`

	// Clients limits the match to frames of one of these clients. Default: any.
	Clients []string `json:"clients,omitempty"`

	// At is where the matcher stands in the Caddyfile, as `file:line`. The
	// Caddyfile adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Matcher) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "layer4.matchers.knock", New: func() caddy.Module { return new(Matcher) }}
}

// Provision sets the matcher up.
func (m *Matcher) Provision(ctx caddy.Context) error {
	if err := m.provision(ctx); err != nil {
		return knockapp.Placed(m.At, err)
	}
	m.app.Guards(knockapp.ChoosesRoute)
	closeOrphans(ctx, m.app)
	return knockapp.Placed(m.At, m.app.CheckNames(m.Services, m.Clients))
}

// Match looks at the bytes that have arrived.
func (m *Matcher) Match(cx *layer4.Connection) (bool, error) {
	gate := m.app.Running()
	if gate == nil {
		return false, nil // not started yet: nobody can be let in
	}
	verdict := m.stream(cx, gate).Check(cx.MatchingBytes())
	switch verdict.State {
	case wire.NeedMore:
		return false, layer4.ErrConsumedAllPrefetchedBytes
	case wire.Foreign:
		return false, nil
	}
	client := verdict.Credential.Client
	if len(m.Clients) > 0 && !slices.Contains(m.Clients, client.ID) {
		return false, nil
	}
	source := knockserver.AddrPortOf(cx.RemoteAddr()).Addr()
	services, err := gate.Preview(knockserver.KnockOf(verdict.Frame, client, source, ""))
	if err != nil {
		return false, nil
	}
	return len(m.Services) == 0 || slices.Contains(m.Services, services[0].Name), nil
}

// Interface guards
var (
	_ caddy.Provisioner  = (*Matcher)(nil)
	_ layer4.ConnMatcher = (*Matcher)(nil)
)
