// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() { httpcaddyfile.RegisterGlobalOption("knock", parseGlobalOption) }

// parseGlobalOption reads the `knock` global option. Syntax: see
// App.UnmarshalCaddyfile. Several blocks, from imported files say, add up.
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	app := new(App)
	if existing != nil {
		prior, ok := existing.(httpcaddyfile.App)
		if !ok {
			return nil, d.Errf("knock was configured before in another way (%T)", existing)
		}
		if err := json.Unmarshal(prior.Value, app); err != nil {
			return nil, d.WrapErr(err)
		}
	}
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "knock", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile reads the app's block. Syntax:
//
//	knock {
//		client <id> {
//			...
//		}
//		service <name> <port...> {
//			...
//		}
//		clients_file <path>
//		devices_file <path>
//		bans off|{
//			...
//		}
//		methods <method...>
//		time_window <duration>
//		session_wait <duration>|off
//		source <name> [<argument...>] {
//			...
//		}
//		door <name> {
//			...
//		}
//		store <name> {
//			...
//		}
//		firewall <name> {
//			...
//		}
//		max_pending <count>
//		max_grants <count>
//		allow_local
//		insecure_file_mode
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	if a.At == "" {
		a.At = Place(d)
	}
	if d.CountRemainingArgs() > 0 {
		return d.Errf("knock takes no argument; open a block after it")
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "client":
			err = a.unmarshalClient(d)
		case "service":
			err = a.unmarshalService(d)
		case "clients_file":
			err = opts.Text(&a.ClientsFile)
		case "devices_file":
			err = opts.Text(&a.DevicesFile)
		case "bans":
			err = a.unmarshalBans(opts, d)
		case "methods":
			err = unmarshalMethods(opts, d, &a.Methods)
		case "time_window":
			err = opts.Duration(&a.TimeWindow)
		case "session_wait":
			err = a.unmarshalSessionWait(opts, d)
		case "source":
			err = a.unmarshalSource(d)
		case "door":
			err = a.unmarshalDoor(d)
		case "store":
			err = a.unmarshalStore(opts, d)
		case "firewall":
			err = a.unmarshalFirewall(d)
		case "max_pending":
			err = opts.Positive(&a.MaxPending)
		case "max_grants":
			err = opts.Positive(&a.MaxGrants)
		case "allow_local":
			err = opts.Flag(&a.AllowLocal)
		case "insecure_file_mode":
			err = opts.Flag(&a.InsecureFileMode)
		default:
			err = opts.Unknown("client", "clients_file", "devices_file", "service", "bans", "methods", "time_window", "session_wait", "source", "door", "store", "firewall",
				"max_pending", "max_grants", "allow_local", "insecure_file_mode")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func unmarshalMethods(opts *Options, d *caddyfile.Dispenser, to *[]string) error {
	if err := opts.List(to); err != nil {
		return err
	}
	_, err := parseMethods(*to)
	return wrapErr(d, err)
}

func (a *App) unmarshalSessionWait(opts *Options, d *caddyfile.Dispenser) error {
	if d.CountRemainingArgs() == 1 {
		d.NextArg()
		if d.Val() == "off" {
			a.SessionWait = -1
			return nil
		}
		d.Prev()
	}
	return opts.Duration(&a.SessionWait)
}

func (a *App) unmarshalStore(opts *Options, d *caddyfile.Dispenser) error {
	if err := opts.Once(); err != nil {
		return err
	}
	raw, _, err := guestModule(d, "knock.stores", "store")
	a.StoreRaw = raw
	return err
}

func (a *App) unmarshalSource(d *caddyfile.Dispenser) error {
	raw, _, err := guestModule(d, "knock.sources", "source")
	a.SourcesRaw = append(a.SourcesRaw, raw)
	return err
}

func (a *App) unmarshalFirewall(d *caddyfile.Dispenser) error {
	raw, name, err := guestModule(d, "knock.firewalls", "")
	if err != nil {
		return err
	}
	if a.FirewallsRaw[name] != nil {
		return d.Errf("firewall %s is configured twice", name)
	}
	if a.FirewallsRaw == nil {
		a.FirewallsRaw = make(caddy.ModuleMap)
	}
	a.FirewallsRaw[name] = raw
	return nil
}

// guestModule reads `<option> <module> …`; with an inline key its JSON names the
// module.
func guestModule(d *caddyfile.Dispenser, namespace, inlineKey string) (json.RawMessage, string, error) {
	option := d.Val()
	kind := strings.TrimSuffix(strings.TrimPrefix(namespace, "knock."), "s")
	var known []string
	for _, mod := range caddy.GetModules(namespace) {
		known = append(known, mod.ID.Name())
	}
	if !d.NextArg() {
		return nil, "", d.Errf("option %s takes the name of a %s; expect %s", option, kind, strings.Join(known, ", "))
	}
	name := d.Val()
	if !slices.Contains(known, name) {
		return nil, "", d.Errf("there is no %s %q in this Caddy; %s", kind, name, expect(name, known))
	}
	mod, err := caddyfile.UnmarshalModule(d, namespace+"."+name)
	if err != nil {
		return nil, "", err
	}
	if inlineKey == "" {
		return caddyconfig.JSON(mod, nil), name, nil
	}
	return caddyconfig.JSONModuleObject(mod, inlineKey, name, nil), name, nil
}

// wrapErr adds file and line to an error, if there is one.
func wrapErr(d *caddyfile.Dispenser, err error) error {
	if err == nil {
		return nil
	}
	return d.WrapErr(err)
}

// Interface guards
var _ caddyfile.Unmarshaler = (*App)(nil)
