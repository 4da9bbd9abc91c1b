// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/command"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
)

// Door is a sequence of ports that a client knocks at, and what it opens, as of
// knockd and knock-rs. A passive source shows it the packets. Whoever can see a
// sequence can repeat it.
type Door struct {
	// Name names the door: 1 to 65,535 bytes without blanks. Names must be unique.
	Name string `json:"name"`

	// Client is the ID of the client whose door it is: grants are its, and so are the
	// addresses that it may knock from.
	Client string `json:"client"`

	// Sequence lists 1 to 32 steps, as `tcp/7000`, `udp/8000` or `7000`; a TCP step
	// may have flags of its own, as `tcp/7000=syn,!ack`.
	Sequence []string `json:"sequence,omitempty"`

	// SequenceFile names a file of sequences, one a line, each good for one opening
	// and marked with # then. It stands instead of `sequence`.
	SequenceFile string `json:"sequence_file,omitempty"`

	// Flags are the TCP flags that steps must have, as `syn,!ack`: fin, syn, rst,
	// psh, ack and urg; those that are not named don't matter. Default: all packets
	// count.
	Flags string `json:"flags,omitempty"`

	// Within is how long the sequence may take, first to last packet. Default: 25s, or
	// no limit if `idle` is set.
	Within caddy.Duration `json:"within,omitempty"`

	// Idle is how long the pause between two steps may be. Default: no limit.
	Idle caddy.Duration `json:"idle,omitempty"`

	// Strict spoils an attempt by whatever else the address sends to ports of this
	// host that are no service's, so that a scan opens nothing. Others behind the same
	// address spoil it too. Default: false.
	Strict bool `json:"strict,omitempty"`

	// Targets are the addresses that knocks must go to. Default: any that the source
	// sees.
	Targets []string `json:"targets,omitempty"`

	// Services are what it opens; its client must be allowed to reach them.
	Services []string `json:"services,omitempty"`

	// Close makes it end the client's grants for the services instead. The services
	// may be `door:NAME`, which is what the commands of another door belong to.
	// Default: false.
	Close bool `json:"close,omitempty"`

	// OpenFor is how long it opens. Default: as long as the client and each service
	// say.
	OpenFor caddy.Duration `json:"open_for,omitempty"`

	// Start are commands that run when it opens, each a program and its arguments,
	// without a shell. Placeholders are those of the firewall `exec`. If one fails,
	// the log and the grant say so.
	Start [][]string `json:"start,omitempty"`

	// Stop are commands that run when it closes again: when its time is over, when the
	// grant is revoked, and when Caddy stops. A knock that renews the grant runs
	// nothing and moves them.
	Stop [][]string `json:"stop,omitempty"`

	// StartIPv6 and StopIPv6 are used for IPv6 addresses instead; an empty list means
	// nothing. Default: those of `start` and `stop`.
	StartIPv6 [][]string `json:"start_ipv6,omitzero"`
	StopIPv6  [][]string `json:"stop_ipv6,omitzero"`

	// Setup are commands that run when Caddy starts, Teardown those that run when it
	// stops, or when the door is no longer configured.
	Setup    [][]string `json:"setup,omitempty"`
	Teardown [][]string `json:"teardown,omitempty"`

	// At is where the door stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`
}

// doorService is the name of the service that a door's commands belong to.
func doorService(door string) string { return "door:" + door }

// hasCommands reports whether the door runs anything.
func (d *Door) hasCommands() bool {
	return len(d.Start)+len(d.Stop)+len(d.StartIPv6)+len(d.StopIPv6)+len(d.Setup)+len(d.Teardown) > 0
}

// opens lists the services that the door is about.
func (d *Door) opens() []string {
	if !d.Close && (d.hasCommands() || len(d.Services) == 0) {
		return append(slices.Clone(d.Services), doorService(d.Name))
	}
	return d.Services
}

// service is what the commands belong to, nil if there are none.
func (d *Door) service() *knockcore.Service {
	own := doorService(d.Name)
	if d.Close || !slices.Contains(d.opens(), own) {
		return nil
	}
	s := &knockcore.Service{Name: own, OpenFor: time.Duration(d.OpenFor), Door: true}
	if d.hasCommands() {
		s.Firewall = own
	}
	return s
}

// convert checks what can be checked without the rest of the configuration.
func (d *Door) convert() (*sequence.Door, error) {
	door := &sequence.Door{
		Name: d.Name, Within: time.Duration(d.Within), Idle: time.Duration(d.Idle), Strict: d.Strict, Payload: d,
	}
	switch {
	case knockcore.ValidateID(d.Name) != nil:
		return nil, knockcore.ValidateID(d.Name)
	case d.Client == "":
		return nil, errors.New("it has no client; add `client ID`")
	case len(d.Sequence) == 0 && d.SequenceFile == "":
		return nil, errors.New("it has no sequence; add for example `sequence tcp/7000 udp/8000 tcp/9000`")
	case len(d.Sequence) > 0 && d.SequenceFile != "":
		return nil, errors.New("it has both a sequence and a sequence_file; keep one")
	case d.Close && len(d.Services) == 0:
		return nil, errors.New("nothing says what it closes; add `service NAME`")
	case d.Close && (d.hasCommands() || d.OpenFor != 0):
		return nil, errors.New("a door that closes has no commands and no open_for: those of the door that opens count")
	case d.OpenFor < 0 || d.Within < 0 || d.Idle < 0:
		return nil, errors.New("times must not be negative")
	}
	var err error
	if door.Flags, err = parseFlags(d.Flags); err != nil {
		return nil, err
	}
	for _, text := range d.Sequence {
		step, err := parseStep(text)
		if err != nil {
			return nil, err
		}
		door.Steps = append(door.Steps, step)
	}
	for _, text := range d.Targets {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("target %q is not an IP address such as 192.0.2.7", text)
		}
		door.Targets = append(door.Targets, addr)
	}
	if _, err := d.commands(); err != nil {
		return nil, err
	}
	if d.SequenceFile != "" {
		if door.OneTime, err = sequence.OpenOneTime(d.SequenceFile); err != nil {
			return nil, err
		}
		if door.OneTime.Remaining() == 0 {
			return nil, fmt.Errorf("sequence_file %s has no sequence left", d.SequenceFile)
		}
	}
	return door, door.Validate()
}

func parseFlags(text string) (sequence.Flags, error) {
	if text == "" {
		return sequence.Flags{}, nil
	}
	return sequence.ParseFlags(text)
}

// parseStep reads a step, with its flags if it has some.
func parseStep(text string) (sequence.Step, error) {
	text, flags, found := strings.Cut(text, "=")
	step, err := sequence.ParseStep(text)
	if err != nil && strings.Contains(text, ",") {
		err = fmt.Errorf("%w; steps are separated by blanks, not by commas", err)
	}
	if err == nil && found {
		step.Flags, err = sequence.ParseFlags(flags)
	}
	return step, err
}

// doorRunner runs the commands of all doors.
var doorRunner = command.NewRunner(0, 0)

// commands are the door's, for an engine.
func (d *Door) commands() (cfg command.Config, err error) {
	cfg = command.Config{
		Async: true, Runner: doorRunner, Journal: CommandJournal(doorService(d.Name)),
		Observe: ObserveCommands(caddy.Log().Named("knock.doors")),
	}
	if cfg.Open, err = WindowCommands("start", d.Start, d.StartIPv6); err != nil {
		return cfg, err
	}
	if cfg.Close, err = WindowCommands("stop", d.Stop, d.StopIPv6); err != nil {
		return cfg, err
	}
	if cfg.Setup, err = ParseCommands("setup", d.Setup, false); err != nil {
		return cfg, err
	}
	cfg.Teardown, err = ParseCommands("teardown", d.Teardown, false)
	return cfg, err
}

// plan is the engine of the door's commands.
func (d *Door) plan() FirewallPlan {
	plan := FirewallPlan{
		Key: doorService(d.Name),
		Open: func() (knockcore.Firewall, error) {
			cfg, err := d.commands()
			return command.New(cfg), err
		},
		Configure: func(fw knockcore.Firewall) error {
			cfg, err := d.commands()
			if err == nil {
				fw.(*command.Engine).Configure(cfg)
			}
			return err
		},
		OnExit: knockcore.ExitClose,
	}
	if len(d.Teardown) > 0 {
		plan.OnExit = knockcore.ExitRemove
	}
	return plan
}
