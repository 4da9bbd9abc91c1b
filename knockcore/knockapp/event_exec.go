// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore/command"
)

func init() { caddy.RegisterModule(new(EventExec)) }

// EventExec is a handler of Caddy's events that runs a command: to tell somebody
// that a client came in, say. No shell is involved. Arguments may hold
// placeholders, such as {event.data.client}, the program may not; what a
// placeholder stands for is never split. Events wait for the command, one after
// the other; those that come too fast are dropped and counted.
type EventExec struct {
	// Command is the program, by its whole path or found in the usual directories,
	// and its arguments.
	Command []string `json:"command"`

	// Timeout is how long it may run before it is killed. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	runner *command.Runner
	logger *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (*EventExec) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.knock_exec", New: func() caddy.Module { return new(EventExec) }}
}

// Provision checks the command.
func (x *EventExec) Provision(ctx caddy.Context) error {
	x.logger = ctx.Logger()
	x.runner = command.NewRunner(time.Duration(x.Timeout), 1)
	return x.check()
}

func (x *EventExec) check() error {
	switch {
	case len(x.Command) == 0 || x.Command[0] == "":
		return errors.New("knock_exec takes a program and its arguments")
	case strings.ContainsRune(x.Command[0], '{'):
		return errors.New("knock_exec: the program can't be a placeholder")
	case x.Timeout < 0:
		return errors.New("knock_exec: timeout must not be negative")
	}
	for _, arg := range x.Command {
		if strings.ContainsRune(arg, 0) {
			return errors.New("knock_exec: an argument has a zero byte")
		}
	}
	return nil
}

// Handle runs the command. One that fails stops no other handler.
func (x *EventExec) Handle(ctx context.Context, e caddy.Event) error {
	repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return errors.New("the event has no placeholders")
	}
	argv := []string{x.Command[0]}
	for _, arg := range x.Command[1:] {
		argv = append(argv, repl.ReplaceAll(arg, ""))
	}
	result := x.runner.Run(ctx, argv)
	fields := []zap.Field{zap.String("event", e.Name()), zap.String("program", argv[0]), zap.Duration("took", result.Took)}
	if result.Output != "" {
		fields = append(fields, zap.String("output", result.Output), zap.Bool("output_cut", result.Cut))
	}
	if result.Err != nil {
		commandsTotal.WithLabelValues("event", "failed").Inc()
		x.logger.Error("command failed", append(fields, zap.Error(result.Err))...)
		return nil
	}
	commandsTotal.WithLabelValues("event", "ok").Inc()
	x.logger.Info("command ran", fields...)
	return nil
}

// UnmarshalCaddyfile reads the handler. Syntax:
//
//	knock_exec <program> [<argument...>] {
//		timeout <duration>
//	}
func (x *EventExec) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the handler's name
	x.Command = d.RemainingArgs()
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "timeout":
			err = opts.Duration(&x.Timeout)
		default:
			err = opts.Unknown("timeout")
		}
		if err != nil {
			return err
		}
	}
	if err := x.check(); err != nil {
		return d.WrapErr(fmt.Errorf("%w, such as /usr/bin/logger {event.data.client}", err))
	}
	return nil
}

// Interface guards
var (
	_ caddyevents.Handler   = (*EventExec)(nil)
	_ caddy.Provisioner     = (*EventExec)(nil)
	_ caddyfile.Unmarshaler = (*EventExec)(nil)
)
