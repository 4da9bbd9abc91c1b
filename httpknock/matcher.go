// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

func init() { caddy.RegisterModule(new(Knocked)) }

// Knocked matches a request whose client address holds a grant: somebody knocked
// from there, or for it, by whatever method. The address is found as by the handler
// `knock`: the peer's, or behind the server's `trusted_proxies` the rightmost one in
// X-Forwarded-For that is not a proxy's; if it is not known, nothing matches.
//
// A request that comes before the TLS handshake is complete (0-RTT) is answered
// with 425, because nobody has shown that the peer is at its address; clients
// repeat it.
//
// In expressions: `knocked('jellyfin')` for one of several services, `knocked()` for
// any, `knocked_by('alice')` for grants of one of several clients.
type Knocked struct {
	// Services limits the match to grants for one of these services. Default: any.
	Services []string `json:"services,omitempty"`

	// Clients limits the match to grants of one of these clients. Default: any.
	Clients []string `json:"clients,omitempty"`

	// At is where the matcher stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`

	app   *knockapp.App
	query *knockcore.Query
}

// CaddyModule returns the Caddy module information.
func (*Knocked) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.matchers.knocked", New: func() caddy.Module { return new(Knocked) }}
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

var errEarly = caddyhttp.Error(http.StatusTooEarly, errors.New("the TLS handshake is not complete, so the client's address is not certain"))

// MatchWithError looks the client's address up.
func (m *Knocked) MatchWithError(r *http.Request) (bool, error) {
	if isEarly(r) {
		return false, errEarly
	}
	addr := clientAddr(r)
	if !addr.IsValid() {
		return false, nil
	}
	gate := gatekeeper(r.Context(), m.app)
	return gate != nil && m.query.Match(gate.State().Table, addr), nil
}

// Interface guards
var (
	_ caddy.Provisioner                 = (*Knocked)(nil)
	_ caddyhttp.RequestMatcherWithError = (*Knocked)(nil)
	_ caddyhttp.CELLibraryProducer      = (*Knocked)(nil)
)
