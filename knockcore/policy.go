// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// examine makes every check that has no effect. It fills in the knock's
// defaults.
func (g *Gatekeeper) examine(k *Knock, now time.Time) (services []*Service, prefix netip.Prefix, err error) {
	k.Source = plain(k.Source)
	if k.Window <= 0 {
		k.Window = g.cfg.Window
	}
	if err = g.mayKnock(k, now); err != nil {
		return nil, prefix, err
	}
	if services, err = g.wanted(k); err != nil {
		return nil, prefix, err
	}
	if prefix, err = g.prefix(k); err != nil {
		return nil, prefix, err
	}
	if !k.Time.IsZero() {
		err = inTime(k.Time, now, k.Window)
	}
	return services, prefix, err
}

// MayKnock reports why the client of the knock may not knock now, by this method
// and from this source, whatever the knock is for; nil if it may. It has no
// effect.
func (g *Gatekeeper) MayKnock(k Knock) error {
	k.Source = plain(k.Source)
	return g.mayKnock(&k, g.cfg.Now())
}

// Grantable reports why no grant may be for the prefix, which must be normal as of
// NormalPrefix: nobody has such an address, or it is this host's own. Nil if one
// may.
func (g *Gatekeeper) Grantable(p netip.Prefix) error { return g.grantable(p) }

// mayKnock checks what the client may do, whatever the knock is for.
func (g *Gatekeeper) mayKnock(k *Knock, now time.Time) error {
	c := k.Client
	switch {
	case !g.cfg.Methods.Has(k.Method):
		return ReasonWrongMethod
	case !c.MayUse(k.Method):
		return &Refusal{Reason: ReasonWrongMethod, Detail: "the client may not use " + k.Method.String()}
	case !c.Expires.IsZero() && !now.Before(c.Expires):
		return &Refusal{Reason: ReasonForbidden, Detail: "the client has expired"}
	case !c.MayKnockFrom(k.Source):
		return &Refusal{Reason: ReasonForbidden, Detail: "the client may not knock from this address"}
	}
	return nil
}

// wanted finds the services that the knock is for; the client may reach all of
// them. For frames it is exactly one.
func (g *Gatekeeper) wanted(k *Knock) ([]*Service, error) {
	var services []*Service
	add := func(s *Service) error {
		if s == nil {
			return ReasonUnknownService
		}
		if !k.Client.MayReach(s.Name) {
			return &Refusal{Reason: ReasonForbidden, Detail: "the client may not reach service " + s.Name}
		}
		if !slices.Contains(services, s) {
			services = append(services, s)
		}
		return nil
	}
	switch {
	case len(k.Services) > 0:
		for _, name := range k.Services {
			if err := add(g.services[name]); err != nil {
				return nil, err
			}
		}
	case len(k.Ports) > 0:
		for _, p := range k.Ports {
			if err := add(g.ServiceOf(p.Protocol, p.Low)); err != nil {
				return nil, err
			}
		}
	default:
		for _, s := range g.cfg.Services {
			if k.Client.MayReach(s.Name) && !s.Door {
				services = append(services, s)
			}
		}
		if len(services) == 0 {
			return nil, &Refusal{Reason: ReasonForbidden, Detail: "the client may reach no service"}
		}
	}
	return services, nil
}

// prefix is the address or prefix that the knock is for.
func (g *Gatekeeper) prefix(k *Knock) (netip.Prefix, error) {
	if k.Method.IsFrame() {
		return AddrPrefix(k.Source), nil
	}
	if !k.For.IsValid() {
		p := AddrPrefix(k.Source)
		return p, g.grantable(p)
	}
	p := NormalPrefix(k.For)
	if !p.IsValid() {
		return p, &Refusal{Reason: ReasonMalformed, Detail: "the requested prefix is not valid"}
	}
	if p != AddrPrefix(k.Source) {
		least := k.Client.RemoteBits6
		if p.Addr().Is4() {
			least = k.Client.RemoteBits4
		}
		if least == 0 {
			return p, &Refusal{Reason: ReasonForbidden, Detail: "the client may not knock for another address"}
		}
		if p.Bits() < least {
			return p, &Refusal{Reason: ReasonForbidden, Detail: fmt.Sprintf("the client may knock for a /%d at most", least)}
		}
	}
	return p, g.grantable(p)
}

// grantable refuses addresses that no client can have.
func (g *Gatekeeper) grantable(p netip.Prefix) error {
	a := p.Addr()
	if a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return &Refusal{Reason: ReasonForbidden, Detail: "no client has this address"}
	}
	if g.cfg.Local != nil && p.IsSingleIP() && g.cfg.Local(a) {
		return &Refusal{Reason: ReasonForbidden, Detail: "the address is this host's own; something hides the client's (see allow_local)"}
	}
	return nil
}

// inTime checks a timestamp against the clock, in whole milliseconds, both ends
// included.
func inTime(at, now time.Time, window time.Duration) error {
	age := now.UnixMilli() - at.UnixMilli()
	skew := time.Duration(-age) * time.Millisecond
	switch {
	case age > window.Milliseconds():
		return &Refusal{Reason: ReasonStale, Skew: skew}
	case age < -window.Milliseconds():
		return &Refusal{Reason: ReasonFuture, Skew: skew}
	}
	return nil
}
