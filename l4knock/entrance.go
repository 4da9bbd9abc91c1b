// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

// Entrance is what the handler `knock` and the listener wrapper of that name have in
// common: they decide on streams.
type Entrance struct {
	Frames

	// Service is what the stream is for. Default: the service that lists the
	// port which the frame names.
	Service string `json:"service,omitempty"`

	// Wait is how long a stream may take to deliver its frame. Default: 3s.
	Wait caddy.Duration `json:"wait,omitempty"`

	// Cover is the address of the cover: `host:port`, or `unix//path`. It is dialled
	// as soon as a connection comes, so that a stranger sees no difference between
	// this port and a plain proxy to the cover. Default: in a route, the rest of it is
	// the cover, and its dial happens after the decision and shows as a delay; in a
	// listener wrapper there is none.
	Cover string `json:"cover,omitempty"`

	// MaxPending bounds the undecided streams here, instead of the bound that all
	// share. Default: the app's `max_pending`.
	MaxPending int `json:"max_pending,omitempty"`

	// MaxStrangers bounds the strangers here, those at the cover; more are closed.
	// Each costs descriptors here and at the cover, and caddy-l4 stops accepting for
	// good when they run out. Default: an eighth of the process's file limit.
	MaxStrangers int `json:"max_strangers,omitempty"`

	// At is where this stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`
}

// provisionEntrance sets up what decides on streams.
func (e *Entrance) provisionEntrance(ctx caddy.Context) error {
	if err := e.provision(ctx); err != nil {
		return err
	}
	if e.Service != "" {
		if err := e.app.CheckNames([]string{e.Service}, nil); err != nil {
			return err
		}
	}
	e.app.Guards(knockapp.GuardFrame, e.Service)
	e.checker.Service, e.checker.Wait = e.Service, time.Duration(e.Wait)
	if e.MaxPending > 0 {
		e.checker.Pending = knockserver.NewPending(e.MaxPending)
	}
	return nil
}

// entranceOptions are the options of an Entrance besides those of its frames.
var entranceOptions = []string{"service", "wait", "cover", "max_pending", "max_strangers"}

// unmarshalEntrance reads the module; other reads options that only it has, and is
// told their names.
func (e *Entrance) unmarshalEntrance(d *caddyfile.Dispenser, more []string, other func(opts *knockapp.Options) error) error {
	d.Next() // the module's name
	e.At = knockapp.Place(d)
	switch args := d.RemainingArgs(); len(args) {
	case 0:
	case 1:
		e.Service = args[0]
	default:
		return d.Errf("knock takes one argument at most, the service, got %d", len(args))
	}
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch name := d.Val(); {
		case name == "service" && e.Service != "":
			err = d.Errf("the service is named already: %s", e.Service)
		case name == "service":
			err = opts.Text(&e.Service)
		case name == "wait":
			err = opts.Duration(&e.Wait)
		case name == "cover":
			err = opts.Text(&e.Cover)
		case name == "max_pending":
			err = opts.Positive(&e.MaxPending)
		case name == "max_strangers":
			err = opts.Positive(&e.MaxStrangers)
		case slices.Contains(frameOptions, name):
			err = e.unmarshalOption(opts, d)
		case slices.Contains(more, name):
			err = other(opts)
		default:
			err = opts.Unknown(slices.Concat(entranceOptions, more, frameOptions)...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
