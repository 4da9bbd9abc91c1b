// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

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
	knockapp.Knocked
}

// CaddyModule returns the Caddy module information.
func (*Knocked) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.matchers.knocked", New: func() caddy.Module { return new(Knocked) }}
}

// UnmarshalCaddyfile reads the matcher.
func (m *Knocked) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return m.Unmarshal(d, nil) }

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
	return m.Holds(gatekeeper(r.Context(), m.App), addr), nil
}

// Interface guards
var (
	_ caddy.Provisioner                 = (*Knocked)(nil)
	_ caddyhttp.RequestMatcherWithError = (*Knocked)(nil)
	_ caddyfile.Unmarshaler             = (*Knocked)(nil)
	_ caddyhttp.CELLibraryProducer      = (*Knocked)(nil)
)
