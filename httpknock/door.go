// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"context"
	"net"
	"net/netip"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

// Door says who may come to a listener before TLS: addresses that hold a grant, and
// some that always may.
type Door struct {
	knockapp.Knocked

	// Allow lists addresses and prefixes that need no grant. Default: none.
	Allow []string `json:"allow,omitempty"`

	allowed []netip.Prefix
	logger  *zap.Logger
	metrics *metrics
}

func (d *Door) provision(ctx caddy.Context) (err error) {
	d.logger, d.metrics = ctx.Logger(), newMetrics(ctx.GetMetricsRegistry())
	if err = d.Knocked.Provision(ctx); err != nil {
		return err
	}
	d.allowed, err = knockapp.ParsePrefixes(d.Allow)
	return knockapp.Placed(d.At, err)
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
	return d.Holds(gatekeeper(ctx, d.App), addr)
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
