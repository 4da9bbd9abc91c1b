// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore/command"
)

// commandsTotal counts commands, those of the firewall `exec` and of doors.
var commandsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
	Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "commands_total",
	Help: "Commands that were run, by what for (open, close, setup, teardown, event) and result (ok, failed).",
}, []string{"action", "result"})

// ObserveCommands logs commands and counts them. Engines outlive configurations,
// so the logger should be Caddy's own.
func ObserveCommands(logger *zap.Logger) func(command.Event) {
	return func(ev command.Event) {
		fields := []zap.Field{
			zap.String("action", string(ev.Action)), zap.String("service", ev.Window.Service), zap.String("program", ev.Program),
			zap.Duration("took", ev.Took),
		}
		if ev.Window.Prefix.IsValid() {
			fields = append(fields, zap.Stringer("prefix", ev.Window.Prefix), zap.String("client", ev.Window.Client))
		}
		if ev.Output != "" {
			fields = append(fields, zap.String("output", ev.Output), zap.Bool("output_cut", ev.Cut))
		}
		if ev.Err != nil {
			commandsTotal.WithLabelValues(string(ev.Action), "failed").Inc()
			logger.Error("command failed", append(fields, zap.Error(ev.Err))...)
			return
		}
		commandsTotal.WithLabelValues(string(ev.Action), "ok").Inc()
		logger.Info("command ran", fields...)
	}
}

// CommandJournal is where an engine of this name keeps what is open.
func CommandJournal(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(caddy.AppDataDir(), "knock", "commands", hex.EncodeToString(sum[:8])+".journal")
}

// ParseCommands reads argument vectors; what says whose they are.
func ParseCommands(what string, list [][]string, window bool) ([]*command.Template, error) {
	var all []*command.Template
	for _, args := range list {
		t, err := command.Parse(args, window)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		all = append(all, t)
	}
	return all, nil
}

// WindowCommands reads the commands for both families: those for IPv6 are as for
// IPv4 if six is nil; an empty list means none.
func WindowCommands(what string, list, six [][]string) (command.Commands, error) {
	c := command.Commands{}
	var err error
	if c.V4, err = ParseCommands(what, list, true); err != nil {
		return c, err
	}
	if c.V6 = c.V4; six != nil {
		c.V6, err = ParseCommands(what+"_ipv6", six, true)
	}
	return c, err
}

// Command reads a command, a program with its arguments; given again, there are
// several, which run one after the other.
func (o *Options) Command(to *[][]string, window bool) error {
	name := o.d.Val()
	args := o.d.RemainingArgs()
	if len(args) == 0 {
		return o.d.Errf("option %s takes a program and its arguments", name)
	}
	if _, err := command.Parse(args, window); err != nil {
		return o.d.Errf("option %s: %v", name, err)
	}
	*to = append(*to, args)
	return nil
}

// CommandOrOff is Command, with `off` for an empty list.
func (o *Options) CommandOrOff(to *[][]string, d *caddyfile.Dispenser) error {
	if d.CountRemainingArgs() == 1 {
		d.NextArg()
		if d.Val() == "off" {
			*to = [][]string{}
			return nil
		}
		d.Prev()
	}
	return o.Command(to, true)
}
