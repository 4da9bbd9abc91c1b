// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"context"
	"net"
	"net/netip"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

// Door says who may come to a listener before TLS: addresses that hold a grant, and
// some that always may.
type Door struct {
	// Services limits it to grants for one of these services. Default: any.
	Services []string `json:"services,omitempty"`

	// Clients limits it to grants of one of these clients. Default: any.
	Clients []string `json:"clients,omitempty"`

	// Allow lists addresses and prefixes that need no grant. Default: none.
	Allow []string `json:"allow,omitempty"`

	// At is where the wrapper stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`

	app     *knockapp.App
	query   *knockcore.Query
	allowed []netip.Prefix
	logger  *zap.Logger
	metrics *metrics
}

func (d *Door) provision(ctx caddy.Context) (err error) {
	d.logger, d.metrics = ctx.Logger(), newMetrics(ctx.GetMetricsRegistry())
	if d.app, err = knockapp.Of(ctx); err != nil {
		return err
	}
	if err = d.app.CheckNames(d.Services, d.Clients); err != nil {
		return err
	}
	if d.allowed, err = knockapp.ParsePrefixes(d.Allow); err != nil {
		return err
	}
	d.query = knockcore.NewQuery(d.Services, d.Clients)
	d.app.Guards(knockapp.GuardAddress, d.Services...)
	return nil
}

// lets reports whether the address may come in. It waits only if the app has not
// started, until ctx is done.
func (d *Door) lets(ctx context.Context, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range d.allowed {
		if p.Contains(addr) {
			return true
		}
	}
	gate := gatekeeper(ctx, d.app)
	return gate != nil && d.query.Match(gate.State().Table, addr)
}

// refused counts somebody who may not come in.
func (d *Door) refused(wrapper string, addr net.Addr) {
	d.metrics.refused.WithLabelValues(wrapper).Inc()
	if entry := d.logger.Check(zap.DebugLevel, "refused, no grant"); entry != nil {
		entry.Write(zap.Stringer("remote", addr))
	}
}

// addrOf is the address in a net.Addr, the zero Addr if it has none.
func addrOf(addr net.Addr) netip.Addr {
	switch addr := addr.(type) {
	case *net.TCPAddr:
		return addr.AddrPort().Addr()
	case *net.UDPAddr:
		return addr.AddrPort().Addr()
	case nil:
		return netip.Addr{}
	default:
		ap, _ := netip.ParseAddrPort(addr.String())
		return ap.Addr()
	}
}
