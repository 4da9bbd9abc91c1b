// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/command"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

func init() { caddy.RegisterModule(new(Exec)) }

// Exec opens and closes windows by commands of yours. They are run without a
// shell; placeholders stand for what the window is about. Windows are timed by
// Caddy: what was open when it was killed is closed when it starts again.
type Exec struct {
	// Open are the commands that open a window, each a program and its arguments.
	// They run one after the other. If one fails, those of `close` run and the knock
	// is refused. A knock that renews a grant runs nothing.
	Open [][]string `json:"open,omitempty"`

	// Close are the commands that close a window.
	Close [][]string `json:"close,omitempty"`

	// OpenIPv6 and CloseIPv6 are used for IPv6 addresses instead; an empty list means
	// nothing. Default: those of `open` and `close`.
	OpenIPv6  [][]string `json:"open_ipv6,omitzero"`
	CloseIPv6 [][]string `json:"close_ipv6,omitzero"`

	// Setup are the commands that close a service for everybody, run for each service
	// when Caddy starts: they should do no harm if they are run again. Default: none,
	// so that closing is somebody else's business.
	Setup [][]string `json:"setup,omitempty"`

	// Teardown are the commands that undo setup: when a service is no longer
	// configured, or when Caddy stops with `on_exit remove`.
	Teardown [][]string `json:"teardown,omitempty"`

	// Timeout is how long a command may run before it is killed. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// MaxRunning is how many commands may run at a time. Default: 16.
	MaxRunning int `json:"max_running,omitempty"`

	// MaxWindows is how many windows may be open at a time. Default: 4096.
	MaxWindows int `json:"max_windows,omitempty"`

	// OnExit is what happens when Caddy stops: `close` closes all windows, `keep`
	// leaves them open until it starts again, `remove` closes them and runs the
	// commands of `teardown`. Default: close.
	OnExit string `json:"on_exit,omitempty"`

	config command.Config
	exit   knockcore.ExitMode
}

// CaddyModule returns the Caddy module information.
func (*Exec) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.firewalls.exec", New: func() caddy.Module { return new(Exec) }}
}

// Provision checks the commands.
func (x *Exec) Provision(caddy.Context) error {
	if len(x.Open) == 0 {
		return errors.New("it has no command to open with; add `open PROGRAM ARGUMENT...`")
	}
	if x.Timeout < 0 || x.MaxRunning < 0 || x.MaxWindows < 0 {
		return errors.New("timeout, max_running and max_windows must not be negative")
	}
	return x.convert()
}

func (x *Exec) convert() (err error) {
	x.config = command.Config{
		Runner: command.NewRunner(time.Duration(x.Timeout), x.MaxRunning), MaxWindows: x.MaxWindows,
		Journal: knockapp.CommandJournal("firewall exec"), Observe: knockapp.ObserveCommands(caddy.Log().Named("knock.firewalls.exec")),
	}
	if x.config.Open, err = knockapp.WindowCommands("open", x.Open, x.OpenIPv6); err != nil {
		return err
	}
	if x.config.Close, err = knockapp.WindowCommands("close", x.Close, x.CloseIPv6); err != nil {
		return err
	}
	if x.config.Setup, err = knockapp.ParseCommands("setup", x.Setup, false); err != nil {
		return err
	}
	if x.config.Teardown, err = knockapp.ParseCommands("teardown", x.Teardown, false); err != nil {
		return err
	}
	switch x.OnExit {
	case "", "close":
		x.exit = knockcore.ExitClose
	case "keep":
		x.exit = knockcore.ExitKeep
	case "remove":
		x.exit = knockcore.ExitRemove
	default:
		return fmt.Errorf("on_exit %q; expect close, keep or remove", x.OnExit)
	}
	return nil
}

// KnockFirewall implements knockapp.FirewallConverter.
func (x *Exec) KnockFirewall() knockapp.FirewallPlan {
	return knockapp.FirewallPlan{
		Key:    "exec",
		OnExit: x.exit,
		Open:   func() (knockcore.Firewall, error) { return command.New(x.config), nil },
		Configure: func(fw knockcore.Firewall) error {
			fw.(*command.Engine).Configure(x.config)
			return nil
		},
		Warnings: func(knockcore.Firewall) []string {
			if len(x.Setup) > 0 {
				return nil
			}
			return []string{"it has no `setup`: that its services are closed for strangers is left to others"}
		},
	}
}

// UnmarshalCaddyfile reads the module. Syntax:
//
//	exec {
//		open        <program> [<argument...>]
//		close       <program> [<argument...>]
//		open_ipv6   off|<program> [<argument...>]
//		close_ipv6  off|<program> [<argument...>]
//		setup       <program> [<argument...>]
//		teardown    <program> [<argument...>]
//		timeout     <duration>
//		max_running <count>
//		max_windows <count>
//		on_exit     close|keep|remove
//	}
func (x *Exec) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.CountRemainingArgs() > 0 {
		return d.Errf("firewall exec takes no argument; open a block after it")
	}
	place := knockapp.Place(d)
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "open":
			err = opts.Command(&x.Open, true)
		case "close":
			err = opts.Command(&x.Close, true)
		case "open_ipv6":
			err = opts.CommandOrOff(&x.OpenIPv6, d)
		case "close_ipv6":
			err = opts.CommandOrOff(&x.CloseIPv6, d)
		case "setup":
			err = opts.Command(&x.Setup, false)
		case "teardown":
			err = opts.Command(&x.Teardown, false)
		case "timeout":
			err = opts.Duration(&x.Timeout)
		case "max_running":
			err = opts.Positive(&x.MaxRunning)
		case "max_windows":
			err = opts.Positive(&x.MaxWindows)
		case "on_exit":
			err = opts.Text(&x.OnExit)
		default:
			err = opts.Unknown("open", "close", "open_ipv6", "close_ipv6", "setup", "teardown", "timeout", "max_running", "max_windows", "on_exit")
		}
		if err == nil {
			if err = x.convert(); err != nil {
				err = d.WrapErr(err)
			}
		}
		if err != nil {
			return err
		}
	}
	if len(x.Open) == 0 {
		return fmt.Errorf("%s: firewall exec has no command to open with; add `open PROGRAM ARGUMENT...`", place)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner          = (*Exec)(nil)
	_ caddyfile.Unmarshaler      = (*Exec)(nil)
	_ knockapp.FirewallConverter = (*Exec)(nil)
)
