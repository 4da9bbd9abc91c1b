// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/mholt/caddy-l4/layer4"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

// frameOptions are the options of Frames.
var frameOptions = []string{"methods", "hint_mode", "buckets", "max_attempts", "port"}

// unmarshalOption reads one of frameOptions.
func (f *Frames) unmarshalOption(opts *knockapp.Options, d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "methods":
		if err := opts.List(&f.Methods); err != nil {
			return err
		}
		for _, name := range f.Methods {
			m, err := knockcore.ParseMethod(name)
			if err != nil {
				return d.WrapErr(err)
			}
			if !m.IsFrame() {
				return d.Errf("%s is not a frame inside a TCP stream; expect %v or %v", name, knockcore.MethodEnvelopeV2, knockcore.MethodFrameV1)
			}
		}
		return nil
	case "hint_mode":
		if err := opts.Text(&f.HintMode); err != nil {
			return err
		}
		if f.HintMode != "route-hint" && f.HintMode != "none" {
			return d.Errf("hint_mode %q; expect route-hint or none", f.HintMode)
		}
		return nil
	case "buckets":
		var sizes []string
		if err := opts.List(&sizes); err != nil {
			return err
		}
		for _, size := range sizes {
			n, err := strconv.Atoi(size)
			if err != nil {
				return d.Errf("buckets: %q is not a number of bytes, such as 256", size)
			}
			f.Buckets = append(f.Buckets, n)
		}
		slices.Sort(f.Buckets)
		return nil
	case "max_attempts":
		return opts.Positive(&f.MaxAttempts)
	default:
		var port int
		if err := opts.Positive(&port); err != nil {
			return err
		}
		if port > 65535 {
			return d.Errf("port %d is greater than 65535, the greatest there is", port)
		}
		f.Port = uint16(port)
		return nil
	}
}

// UnmarshalCaddyfile reads the handler. Syntax:
//
//	knock [<service>] {
//		service <name>
//		wait <duration>
//		methods <method...>
//		hint_mode route-hint|none
//		buckets <bytes...>
//		max_attempts <count>
//		port <port>
//		cover <address>
//		max_pending <count>
//		max_strangers <count>
//		admit {
//			<handler...>
//		}
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return h.unmarshalEntrance(d, []string{"admit"}, func(opts *knockapp.Options) error { return h.unmarshalAdmit(opts, d) })
}

func (h *Handler) unmarshalAdmit(opts *knockapp.Options, d *caddyfile.Dispenser) error {
	if err := opts.Once(); err != nil {
		return err
	}
	if d.CountRemainingArgs() > 0 {
		return d.Errf("admit takes no argument; open a block of handlers after it")
	}
	if err := layer4.ParseCaddyfileNestedHandlers(d, &h.AdmitRaw); err != nil {
		return err
	}
	if len(h.AdmitRaw) == 0 {
		return d.Errf("admit has no handler; name one such as `proxy 127.0.0.1:22`")
	}
	return nil
}

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
	return l.unmarshalEntrance(d, nil, nil)
}

// UnmarshalCaddyfile reads the handler. Syntax:
//
//	knock_relay <upstream...> {
//		upstreams <upstream...>
//		dial_timeout <duration>
//		proxy_protocol v1|v2
//		idle_timeout <duration>
//		keepalive <duration>
//		user_timeout <duration>
//		max_per_client <count>
//		max_per_service <count>
//	}
func (r *Relay) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the handler's name
	r.At = knockapp.Place(d)
	r.Upstreams = d.RemainingArgs()
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "upstreams":
			err = opts.List(&r.Upstreams)
		case "dial_timeout":
			err = opts.Duration(&r.DialTimeout)
		case "proxy_protocol":
			err = opts.Text(&r.ProxyProtocol)
		case "idle_timeout":
			err = opts.Duration(&r.IdleTimeout)
		case "keepalive":
			err = opts.Duration(&r.KeepAlive)
		case "user_timeout":
			err = opts.Duration(&r.UserTimeout)
		case "max_per_client":
			err = opts.Positive(&r.MaxPerClient)
		case "max_per_service":
			err = opts.Positive(&r.MaxPerService)
		default:
			err = opts.Unknown("upstreams", "dial_timeout", "proxy_protocol", "idle_timeout", "keepalive", "user_timeout", "max_per_client", "max_per_service")
		}
		if err != nil {
			return err
		}
	}
	if len(r.Upstreams) == 0 {
		return d.Errf("knock_relay has no upstream; name one such as `knock_relay 127.0.0.1:22`")
	}
	return nil
}

// UnmarshalCaddyfile reads the matcher. Syntax:
//
//	knock {
//		services <name...>
//		clients <id...>
//		methods <method...>
//		hint_mode route-hint|none
//		buckets <bytes...>
//		max_attempts <count>
//		port <port>
//	}
func (m *Matcher) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the matcher's name
	m.At = knockapp.Place(d)
	if d.CountRemainingArgs() > 0 {
		return d.Errf("the matcher knock takes no argument; open a block after it")
	}
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch name := d.Val(); {
		case name == "services":
			err = opts.List(&m.Services)
		case name == "clients":
			err = opts.List(&m.Clients)
		case slices.Contains(frameOptions, name):
			err = m.unmarshalOption(opts, d)
		default:
			err = opts.Unknown(append([]string{"services", "clients"}, frameOptions...)...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Handler)(nil)
	_ caddyfile.Unmarshaler = (*Matcher)(nil)
	_ caddyfile.Unmarshaler = (*Listener)(nil)
	_ caddyfile.Unmarshaler = (*Relay)(nil)
)
