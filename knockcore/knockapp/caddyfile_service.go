// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import "github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

// unmarshalService reads a service. Syntax:
//
//	service <name> <port...> {
//		open_for <duration>
//		max_open <duration>
//		require_session
//		uses <count>
//		close_after_auth
//		destinations <prefix...>
//		firewall <name>
//		on_expire drain|cut
//	}
func (a *App) unmarshalService(d *caddyfile.Dispenser) error {
	s := &Service{At: Place(d)}
	args := d.RemainingArgs()
	if len(args) < 2 {
		return d.Errf("service takes a name and at least one port, such as `service ssh tcp/2222`")
	}
	s.Name, s.Ports = args[0], args[1:]
	for _, other := range a.Services {
		if other.Name == s.Name {
			return d.Errf("service %s is defined twice (first at %s)", s.Name, other.At)
		}
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "open_for":
			err = opts.Duration(&s.OpenFor)
		case "max_open":
			err = opts.Duration(&s.MaxOpen)
		case "require_session":
			err = opts.Flag(&s.RequireSession)
		case "uses":
			err = opts.Positive(&s.Uses)
		case "close_after_auth":
			err = opts.Flag(&s.CloseAfterAuth)
		case "destinations":
			err = opts.List(&s.Destinations)
		case "firewall":
			err = opts.Text(&s.Firewall)
		case "on_expire":
			err = opts.Text(&s.OnExpire)
		default:
			err = opts.Unknown("open_for", "max_open", "require_session", "uses", "close_after_auth", "destinations", "firewall", "on_expire")
		}
		if err != nil {
			return err
		}
	}
	if _, err := s.convert(); err != nil {
		return Placed(s.At, err)
	}
	a.Services = append(a.Services, s)
	return nil
}
