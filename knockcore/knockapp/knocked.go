// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"net/netip"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Knocked is what all modules called `knocked` have in common: they look for a grant
// of an address.
type Knocked struct {
	// Services limits the match to grants for one of these services. Default: any.
	Services []string `json:"services,omitempty"`

	// Clients limits the match to grants of one of these clients. Default: any.
	Clients []string `json:"clients,omitempty"`

	// At is where the module stands in the Caddyfile, as `file:line`. The
	// Caddyfile adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`

	// App is the app, once provisioned.
	App *App `json:"-"`

	query *knockcore.Query
}

// Provision sets the module up.
func (k *Knocked) Provision(ctx caddy.Context) (err error) {
	if k.App, err = Of(ctx); err != nil {
		return Placed(k.At, err)
	}
	k.App.Guards(GuardAddress, k.Services...)
	k.query = knockcore.NewQuery(k.Services, k.Clients)
	return Placed(k.At, k.App.CheckNames(k.Services, k.Clients))
}

// Holds reports whether the address holds such a grant. Without a gatekeeper none
// does.
func (k *Knocked) Holds(gate *knockcore.Gatekeeper, addr netip.Addr) bool {
	return gate != nil && k.query.Match(gate.State().Table, addr)
}

// Unmarshal reads services and clients, and where allow is not nil the option of
// that name. Syntax:
//
//	knocked [<service...>] {
//		services <name...>
//		clients <id...>
//	}
func (k *Knocked) Unmarshal(d *caddyfile.Dispenser, allow *[]string) error {
	d.Next() // the module's name
	k.At = Place(d)
	k.Services = append(k.Services, d.RemainingArgs()...)
	known := []string{"services", "clients"}
	if allow != nil {
		known = append(known, "allow")
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch name := d.Val(); {
		case name == "services":
			err = opts.List(&k.Services)
		case name == "clients":
			err = opts.List(&k.Clients)
		case name == "allow" && allow != nil:
			err = opts.List(allow)
		default:
			err = opts.Unknown(known...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Placed says in the error where in the Caddyfile the wrong thing stands.
func Placed(place string, err error) error {
	if place == "" || err == nil {
		return err
	}
	return fmt.Errorf("%s: %w", place, err)
}
