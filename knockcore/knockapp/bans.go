// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Bans keeps addresses on record that fail too often. A failure is a wrong API
// key, or a TCP frame whose hint fits a client and which then fails: neither
// happens to strangers by accident, and neither can be spoofed. A ban never
// stops a valid frame and never ends a grant.
type Bans struct {
	// Failures within Within make a ban. Default: 10.
	Failures int `json:"failures,omitempty"`

	// Within is the time in which failures are counted. Default: 10m.
	Within caddy.Duration `json:"within,omitempty"`

	// For is how long the first ban lasts; each further one lasts twice as long as
	// the one before. Default: 10m.
	For caddy.Duration `json:"for,omitempty"`

	// Max is the longest a ban lasts. Default: 24h.
	Max caddy.Duration `json:"max,omitempty"`

	// Allow lists addresses and prefixes that are never banned.
	Allow []string `json:"allow,omitempty"`

	// Firewall names a firewall that drops what banned addresses send to Ports, so
	// that it does not reach Caddy: nftables, with a table of its own. Who holds a grant
	// passes. Default: none; a ban only makes wrong keys wait.
	Firewall string `json:"firewall,omitempty"`

	// Ports are those that Firewall keeps banned addresses out of, such as `tcp/443`.
	// Until the ban ends, or a knock by datagram gives them a grant, they can't
	// authenticate there either, by a right key or a valid frame. No default.
	Ports []string `json:"ports,omitempty"`

	// Off bans nobody.
	Off bool `json:"off,omitempty"`

	// At is where the option stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`
}

func (b *Bans) convert() (*knockcore.BanConfig, error) {
	if b == nil {
		return new(knockcore.BanConfig), nil
	}
	if b.Off {
		if b.Firewall != "" || len(b.Ports) > 0 {
			return nil, errors.New("bans: off bans nobody, so that firewall and ports mean nothing")
		}
		return nil, nil
	}
	switch {
	case b.Firewall == "" && len(b.Ports) > 0:
		return nil, errors.New("bans: ports are for a firewall; add `firewall nftables`")
	case b.Firewall != "" && len(b.Ports) == 0:
		return nil, fmt.Errorf("bans: firewall %s keeps banned addresses out of the ports that you name; add for example `ports tcp/443 udp/443`", b.Firewall)
	}
	if _, err := b.ports(); err != nil {
		return nil, err
	}
	allow, err := ParsePrefixes(b.Allow)
	if err != nil {
		return nil, fmt.Errorf("bans: allow: %w", err)
	}
	if b.Max > 0 && b.For > b.Max {
		return nil, fmt.Errorf("bans: for %v is longer than max %v", time.Duration(b.For), time.Duration(b.Max))
	}
	return &knockcore.BanConfig{
		Failures: b.Failures, Within: time.Duration(b.Within), Length: time.Duration(b.For), MaxLength: time.Duration(b.Max), Allow: allow,
	}, nil
}

// unmarshalBans reads the option. Syntax:
//
//	bans off|{
//		failures <count>
//		within <duration>
//		for <duration>
//		max <duration>
//		allow <address|prefix|private_ranges...>
//		firewall <name>
//		ports <port...>
//	}
func (a *App) unmarshalBans(outer *Options, d *caddyfile.Dispenser) error {
	if err := outer.Once(); err != nil {
		return err
	}
	a.Bans = &Bans{At: Place(d)}
	if args := d.RemainingArgs(); len(args) > 0 {
		if len(args) > 1 || args[0] != "off" {
			return d.Errf("bans takes `off` or a block")
		}
		a.Bans.Off = true
		return nil
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "failures":
			err = opts.Positive(&a.Bans.Failures)
		case "within":
			err = opts.Duration(&a.Bans.Within)
		case "for":
			err = opts.Duration(&a.Bans.For)
		case "max":
			err = opts.Duration(&a.Bans.Max)
		case "allow":
			err = opts.List(&a.Bans.Allow)
		case "firewall":
			err = opts.Text(&a.Bans.Firewall)
		case "ports":
			err = opts.List(&a.Bans.Ports)
		default:
			err = opts.Unknown("failures", "within", "for", "max", "allow", "firewall", "ports")
		}
		if err != nil {
			return err
		}
	}
	_, err := a.Bans.convert()
	return Placed(a.Bans.At, err)
}
