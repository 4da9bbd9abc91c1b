// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// unmarshalClient reads a client. Syntax:
//
//	client <id> {
//		secret <secret...>
//		services all|<name...>
//		ttl <duration>
//		max_ttl <duration>
//		expires <date|time>
//		from <address|prefix|private_ranges...>
//		methods <method...>
//		pyknock <key...>
//		fwknop <encryption-key> <hmac-key> [<hmac-type>]
//		api_key <key...>
//		api_key_hash <hash...>
//		allow_remote </ipv4-length> [</ipv6-length>]
//		max_grants <count>
//		allow_weak
//	}
func (a *App) unmarshalClient(d *caddyfile.Dispenser) error {
	c := &Client{At: Place(d)}
	if d.CountRemainingArgs() != 1 {
		return d.Errf("client takes one argument, its ID, got %d", d.CountRemainingArgs())
	}
	d.NextArg()
	c.ID = d.Val()
	if err := knockcore.ValidateID(c.ID); err != nil {
		return d.Errf("client %q: %v", c.ID, err)
	}
	if first, twice := a.places[c.ID]; twice {
		return d.Errf("client %s is defined twice (first at %s); put all its secrets into one block", c.ID, first)
	}
	if a.places == nil {
		a.places = make(map[string]string)
	}
	a.places[c.ID] = c.At
	opts := NewOptions(d)
	var keys datagramKeys
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "secret":
			first := len(c.Secrets)
			if err = opts.List(&c.Secrets); err == nil {
				err = checkLiterals(d, c.Secrets[first:])
			}
		case "services":
			err = unmarshalServices(opts, d, c)
		case "ttl":
			err = opts.Duration(&c.TTL)
		case "max_ttl":
			err = opts.Duration(&c.MaxTTL)
		case "expires":
			if err = opts.Text(&c.Expires); err == nil {
				_, err = parseExpires(c.Expires)
				err = wrapErr(d, err)
			}
		case "from":
			first := len(c.From)
			if err = opts.List(&c.From); err == nil {
				_, err = ParsePrefixes(c.From[first:])
				err = wrapErr(d, err)
			}
		case "methods":
			err = unmarshalMethods(opts, d, &c.Methods)
		case "pyknock":
			err = keys.unmarshalPyknock(opts, d, c)
		case "fwknop":
			err = keys.unmarshalFwknop(d, c)
		case "api_key":
			err = unmarshalAPIKeys(opts, d, c)
		case "api_key_hash":
			err = unmarshalAPIKeyHashes(opts, d, c)
		case "allow_remote":
			err = unmarshalAllowRemote(opts, d, c)
		case "max_grants":
			err = opts.Positive(&c.MaxGrants)
		case "allow_weak":
			err = opts.Flag(&c.AllowWeak)
		default:
			err = opts.Unknown("secret", "services", "ttl", "max_ttl", "expires", "from", "methods", "pyknock", "fwknop", "api_key", "api_key_hash", "allow_remote", "max_grants", "allow_weak")
		}
		if err != nil {
			return err
		}
	}
	if err := keys.check(c.AllowWeak); err != nil {
		return err
	}
	a.Clients = append(a.Clients, c)
	return nil
}

// checkLiterals finds weak secrets while the line is known; those behind
// placeholders are checked when the configuration is loaded.
func checkLiterals(d *caddyfile.Dispenser, secrets []string) error {
	for _, text := range secrets {
		if !isLiteral(text) {
			continue
		}
		if err := checkBraces(text); err != nil {
			return d.WrapErr(err)
		}
		secret, err := knockcore.ParseSecret(text)
		if err == nil {
			err = secret.Strong()
		}
		if err != nil {
			return d.WrapErr(err)
		}
	}
	return nil
}

func unmarshalServices(opts *Options, d *caddyfile.Dispenser, c *Client) error {
	var names []string
	if err := opts.List(&names); err != nil {
		return err
	}
	for _, name := range names {
		if name == "all" {
			if len(names) > 1 {
				return d.Errf("services: `all` stands alone")
			}
			c.AllServices = true
			return nil
		}
	}
	c.Services = append(c.Services, names...)
	return nil
}
