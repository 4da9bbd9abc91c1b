// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

// UnmarshalCaddyfile reads the listener wrapper. Syntax:
//
//	knock [<service>] {
//		service <name>
//		wait <duration>
//		cover <address>
//		methods <method...>
//		hint_mode route-hint|none
//		buckets <bytes...>
//		max_attempts <count>
//		port <port>
//		max_pending <count>
//		max_strangers <count>
//	}
func (l *Listener) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the wrapper's name
	l.At = knockapp.Place(d)
	switch args := d.RemainingArgs(); len(args) {
	case 0:
	case 1:
		l.Service = args[0]
	default:
		return d.Errf("knock takes one argument at most, the service, got %d", len(args))
	}
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch name := d.Val(); {
		case name == "service" && l.Service != "":
			err = d.Errf("the service is named already: %s", l.Service)
		case name == "service":
			err = opts.Text(&l.Service)
		case name == "wait":
			err = opts.Duration(&l.Wait)
		case name == "cover":
			err = opts.Text(&l.Cover)
		case name == "max_pending":
			err = opts.Positive(&l.MaxPending)
		case name == "max_strangers":
			err = opts.Positive(&l.MaxStrangers)
		case slices.Contains(frameOptions, name):
			err = l.unmarshalOption(opts, d)
		default:
			err = opts.Unknown(append([]string{"service", "wait", "cover", "max_pending", "max_strangers"}, frameOptions...)...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Listener)(nil)
