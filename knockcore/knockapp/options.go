// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Options reads the options of a Caddyfile block strictly: each may occur once,
// takes exactly the arguments it takes, and has no block of its own.
type Options struct {
	d    *caddyfile.Dispenser
	seen map[string]int
}

// NewOptions starts a block.
func NewOptions(d *caddyfile.Dispenser) *Options {
	return &Options{d: d, seen: make(map[string]int)}
}

// Place is where the current token stands, as file:line.
func Place(d *caddyfile.Dispenser) string { return fmt.Sprintf("%s:%d", d.File(), d.Line()) }

// Once refuses an option that was given before.
func (o *Options) Once() error {
	name := o.d.Val()
	if line, twice := o.seen[name]; twice {
		return o.d.Errf("option %s was given before, at line %d", name, line)
	}
	o.seen[name] = o.d.Line()
	return nil
}

// Unknown refuses an option and names those that exist.
func (o *Options) Unknown(known ...string) error {
	return o.d.Errf("unknown option %q; %s", o.d.Val(), expect(o.d.Val(), known))
}

// Flag reads an option without arguments.
func (o *Options) Flag(to *bool) error {
	if err := o.Once(); err != nil {
		return err
	}
	if o.d.CountRemainingArgs() > 0 {
		return o.d.Errf("option %s takes no argument", o.d.Val())
	}
	*to = true
	return nil
}

// Text reads an option with one argument.
func (o *Options) Text(to *string) error {
	if err := o.Once(); err != nil {
		return err
	}
	name := o.d.Val()
	switch n := o.d.CountRemainingArgs(); n {
	case 0:
		return o.d.Errf("option %s takes one argument, got 0%s", name, unset)
	case 1:
	default:
		return o.d.Errf("option %s takes one argument, got %d", name, n)
	}
	o.d.NextArg()
	*to = o.d.Val()
	return nil
}

// List reads an option with one argument or more; given again, it adds to the
// list.
func (o *Options) List(to *[]string) error {
	name := o.d.Val()
	args := o.d.RemainingArgs()
	if len(args) == 0 {
		return o.d.Errf("option %s takes at least one argument%s", name, unset)
	}
	*to = append(*to, args...)
	return nil
}

// unset explains how an argument that was written can be missing.
const unset = " (a {$VARIABLE} that is not set leaves none)"

// Duration reads an option with a positive duration.
func (o *Options) Duration(to *caddy.Duration) error {
	name := o.d.Val()
	if o.d.CountRemainingArgs() > 1 {
		if meant := meantDuration(strings.Join(o.d.RemainingArgs(), "")); meant != "" {
			return o.d.Errf("option %s takes one argument; write %s %s", name, name, meant)
		}
		return o.d.Errf("option %s takes one argument, a duration such as 30s, 8h or 1d", name)
	}
	var text string
	if err := o.Text(&text); err != nil {
		return err
	}
	d, err := caddy.ParseDuration(text)
	if err != nil || d <= 0 {
		if meant := meantDuration(text); meant != "" {
			return o.d.Errf("option %s: %q is not a duration; write %s", name, text, meant)
		}
		return o.d.Errf("option %s: %q is not a positive duration such as 30s, 8h or 1d", name, text)
	}
	*to = caddy.Duration(d)
	return nil
}

// Positive reads an option with a positive whole number.
func (o *Options) Positive(to *int) error {
	name := o.d.Val()
	var text string
	if err := o.Text(&text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return o.d.Errf("option %s: %q is not a positive whole number", name, text)
	}
	*to = n
	return nil
}
