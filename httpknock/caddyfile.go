// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("knock", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		handler := new(Handler)
		return handler, handler.UnmarshalCaddyfile(h.Dispenser)
	})
	// Before whatever could rewrite, redirect or answer its paths.
	httpcaddyfile.RegisterDirectiveOrder("knock", httpcaddyfile.Before, "redir")
}

// UnmarshalCaddyfile reads the handler. Syntax:
//
//	knock [<service...>] {
//		services <name...>
//		always_allowed <address|prefix|private_ranges...>
//		excluded_paths [<host>] <path...>
//		cors_origin <origin>
//		max_grants <count>
//		rate_limit off|{
//			window <duration>
//			successful <count>|off
//			failed <count>|off
//		}
//		documentation
//		page [<url>] {
//			v4 <url>
//			v6 <url>
//		}
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the handler's name
	h.At = knockapp.Place(d)
	h.Services = d.RemainingArgs()
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "services":
			err = opts.List(&h.Services)
		case "always_allowed":
			first := len(h.AlwaysAllowed)
			if err = opts.List(&h.AlwaysAllowed); err == nil {
				if _, parseErr := knockapp.ParsePrefixes(h.AlwaysAllowed[first:]); parseErr != nil {
					err = d.WrapErr(parseErr)
				}
			}
		case "excluded_paths":
			err = h.unmarshalExcluded(opts, d)
		case "cors_origin":
			err = opts.Text(&h.CORSOrigin)
		case "max_grants":
			err = opts.Positive(&h.MaxGrants)
		case "rate_limit":
			err = h.unmarshalRateLimit(opts, d)
		case "documentation":
			err = opts.Flag(&h.Documentation)
		case "page":
			err = h.unmarshalPage(opts, d)
		default:
			err = opts.Unknown("services", "always_allowed", "excluded_paths", "cors_origin", "max_grants", "rate_limit", "documentation", "page")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) unmarshalExcluded(opts *knockapp.Options, d *caddyfile.Dispenser) error {
	var args []string
	if err := opts.List(&args); err != nil {
		return err
	}
	host := ""
	if !strings.HasPrefix(args[0], "/") {
		host, args = args[0], args[1:]
		if len(args) == 0 {
			return d.Errf("excluded_paths: name paths behind the host %s, beginning with a slash", host)
		}
	}
	if _, err := cleanPaths(args); err != nil {
		return d.WrapErr(err)
	}
	if host == "" {
		h.ExcludedPaths = append(h.ExcludedPaths, args...)
		return nil
	}
	if h.ExcludedPathsByHost == nil {
		h.ExcludedPathsByHost = make(map[string][]string)
	}
	h.ExcludedPathsByHost[host] = append(h.ExcludedPathsByHost[host], args...)
	return nil
}

func (h *Handler) unmarshalRateLimit(outer *knockapp.Options, d *caddyfile.Dispenser) error {
	if err := outer.Once(); err != nil {
		return err
	}
	h.RateLimit = new(RateLimit)
	if args := d.RemainingArgs(); len(args) > 0 {
		if len(args) > 1 || args[0] != "off" {
			return d.Errf("rate_limit takes `off` or a block")
		}
		h.RateLimit.Successful, h.RateLimit.Failed = new(int), new(int)
		return nil
	}
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "window":
			err = opts.Duration(&h.RateLimit.Window)
		case "successful":
			err = unmarshalCount(opts, d, &h.RateLimit.Successful)
		case "failed":
			err = unmarshalCount(opts, d, &h.RateLimit.Failed)
		default:
			err = opts.Unknown("window", "successful", "failed")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unmarshalCount reads an option with a positive number or off.
func unmarshalCount(opts *knockapp.Options, d *caddyfile.Dispenser, to **int) error {
	name := d.Val()
	var text string
	if err := opts.Text(&text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if text == "off" {
		n = 0
	} else if err != nil || n <= 0 {
		return d.Errf("option %s: %q is neither a positive whole number nor off", name, text)
	}
	*to = &n
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Handler)(nil)
)
