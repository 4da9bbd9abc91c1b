// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
)

// knockRSRule is a rule of knock-rs, of either format and of its client.
type knockRSRule struct {
	Name       string  `json:"name"`
	Sequence   []int64 `json:"sequence"`
	Host       *string `json:"host"`
	Command    *string `json:"command"`
	Activate   *string `json:"activate"`
	Deactivate *string `json:"deactivate"`
	Timeout    *int64  `json:"timeout"`
	Setup      *string `json:"setup"`
	Teardown   *string `json:"teardown"`
}

type knockRSFile struct {
	Interface *string           `json:"interface"`
	Timeout   *int64            `json:"timeout"`
	Rules     []json.RawMessage `json:"rules"`
}

// knockRSDefaultTimeout is how long a rule is open that does not say.
const knockRSDefaultTimeout = 6 * time.Hour

// decodeKnockRS reads the JSON and says which fields are not known.
func decodeKnockRS(b []byte) (f knockRSFile, rules []knockRSRule, unknown []string, err error) {
	if err = json.Unmarshal(b, &f); err != nil {
		return f, nil, nil, err
	}
	var top map[string]json.RawMessage
	_ = json.Unmarshal(b, &top)
	for key := range top {
		if !slices.Contains([]string{"interface", "timeout", "rules"}, key) {
			unknown = append(unknown, key)
		}
	}
	for i, raw := range f.Rules {
		var r knockRSRule
		var fields map[string]json.RawMessage
		if err = json.Unmarshal(raw, &r); err != nil {
			return f, nil, nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		_ = json.Unmarshal(raw, &fields)
		for key := range fields {
			if !slices.Contains([]string{"name", "sequence", "host", "command", "activate", "deactivate", "timeout", "setup", "teardown"}, key) {
				unknown = append(unknown, r.Name+"."+key)
			}
		}
		rules = append(rules, r)
	}
	slices.Sort(unknown)
	return f, rules, unknown, nil
}

// KnockRS makes a Caddyfile from the server configuration of knock-rs, in the
// format of before March 2025 (command, seconds) or since (activate, milliseconds);
// port-sequences.md section 9.
func KnockRS(b []byte, o Options) (string, error) {
	p := o.problems(b)
	f, rules, unknown, err := decodeKnockRS(b)
	if err != nil {
		p.add(0, "%w", err)
		return "", p.err()
	}
	c := &doors{o: &o, p: p, program: "knock-rs"}
	older, newer := 0, 0
	for _, r := range rules {
		if r.Command != nil {
			older++
		}
		if r.Activate != nil || r.Deactivate != nil || r.Timeout != nil {
			newer++
		}
	}
	switch {
	case len(rules) == 0:
		p.add(0, "there is no rule in it")
	case older > 0 && newer > 0:
		p.add(0, "it mixes `command`, of before March 2025 with times in seconds, and `activate`, `deactivate` or a rule's `timeout`, of since with milliseconds; no knock-rs reads that")
	case older == 0 && newer == 0:
		p.add(0, "no rule has `command` or `activate`; the file of a client is imported as knock-rs-client")
	}
	if f.Timeout == nil || *f.Timeout <= 0 {
		p.add(0, "`timeout` is missing or not positive")
		f.Timeout = new(int64)
	}
	if f.Interface != nil {
		c.ifname = *f.Interface
	}
	for _, field := range unknown {
		c.notes = append(c.notes, "knock-rs ignores the field "+field+", and so do we")
	}
	c.notes = append(c.notes, "changed: knocks must go to this host; those to other hosts that it happened to see opened too.",
		"changed: IPv6 knocks count; knock-rs never saw them.")
	names := make(map[string]bool)
	for _, r := range rules {
		if names[r.Name] {
			p.add(0, "rule %s stands twice, and knock-rs uses the last one only; remove the others", r.Name)
		}
		names[r.Name] = true
		c.list = append(c.list, knockRSDoor(p, r, older > 0, *f.Timeout))
	}
	return c.render()
}

func knockRSDoor(p *problems, r knockRSRule, older bool, timeout int64) *door {
	d := &door{name: r.Name, ends: r.Deactivate != nil, openFor: knockRSDefaultTimeout}
	var err error
	if d.steps, err = knockRSSteps(r.Sequence); err != nil {
		p.add(0, "rule %s: %w", r.Name, err)
	} else {
		d.option(nil, stepTexts(d.steps)...)
	}
	d.flags, _ = sequence.ParseFlags("syn,!ack")
	d.option(nil, "flags", d.flags.String())
	unit, text := time.Millisecond, r.Activate
	if older {
		unit, text = time.Second, r.Command
	}
	limit := time.Duration(min(timeout, int64(sequence.MaxWithin/time.Millisecond))) * unit
	limit = min(limit, sequence.MaxWithin)
	if older {
		d.within = limit
		d.option(nil, "within", duration(limit))
	} else {
		d.idle = limit
		d.option(nil, "idle", duration(limit))
	}
	if text == nil || strings.TrimSpace(*text) == "" {
		p.add(0, "rule %s has no command to run; knock-rs ends at its first match", r.Name)
		return d
	}
	d.start = knockRSCommand(text)
	d.stop, d.setup, d.teardown = knockRSCommand(r.Deactivate), knockRSCommand(r.Setup), knockRSCommand(r.Teardown)
	if d.stop != nil {
		d.stopNote = []string{"safer: never before its time, as knock-rs may"}
	}
	if r.Timeout != nil {
		if d.openFor = time.Duration(*r.Timeout) * time.Millisecond; *r.Timeout <= 0 || *r.Timeout > int64(1000*24*time.Hour/time.Millisecond) {
			p.add(0, "rule %s: a timeout of %d ms makes no sense", r.Name, *r.Timeout)
		} else if *r.Timeout == 21600 {
			d.notes = append(d.notes, "todo: timeout 21600 are milliseconds, 21.6 s; the example of knock-rs means 6 hours")
		}
	}
	return d
}

func knockRSSteps(ports []int64) (steps []sequence.Step, err error) {
	if len(ports) == 0 {
		return nil, fmt.Errorf("an empty sequence, which any knock opens")
	}
	for _, port := range ports {
		step, err := sequence.ParseStep(fmt.Sprint(port))
		if err != nil {
			return nil, err
		}
		steps = append(steps, step)
	}
	if len(steps) > sequence.MaxSteps {
		return nil, fmt.Errorf("a sequence has %d ports at most", sequence.MaxSteps)
	}
	return steps, nil
}

// knockRSCommand splits a command as knock-rs does: at blanks, and nothing else.
func knockRSCommand(text *string) (argv []string) {
	if text == nil {
		return nil
	}
	for _, word := range strings.Fields(*text) {
		argv = append(argv, strings.ReplaceAll(word, "%IP%", addressHolder))
	}
	return argv
}

// KnockRSClient makes profiles from the configuration of knock-rs's client.
func KnockRSClient(b []byte, o Options) ([]Profile, error) {
	p := o.problems(b)
	_, rules, unknown, err := decodeKnockRS(b)
	if err != nil {
		p.add(0, "%w", err)
		return nil, p.err()
	}
	if len(rules) == 0 {
		p.add(0, "there is no rule in it")
	}
	var list []Profile
	for _, r := range rules {
		steps, err := knockRSSteps(r.Sequence)
		if err == nil {
			err = knockcore.ValidateID(r.Name)
		}
		if err != nil {
			p.add(0, "rule %s: %w", r.Name, err)
			continue
		}
		if r.Command != nil || r.Activate != nil {
			p.add(0, "rule %s has a command: this is the file of a server, imported as knock-rs", r.Name)
		}
		profile := Profile{Name: r.Name, Profile: &knockclient.Profile{Client: r.Name, Knock: &knockclient.ProfileKnock{
			Method: knockcore.MethodPortSequence, Steps: steps, Interval: 100 * time.Millisecond, NoFrame: true,
		}}}
		if r.Host != nil {
			profile.Server = strings.Trim(*r.Host, "[]")
		}
		for _, field := range unknown {
			profile.Notes = append(profile.Notes, "knock-rs ignores the field "+field+", and so do we")
		}
		profile.Notes = append(profile.Notes, "changed: it knocks at all addresses of the host, not at the first one only")
		list = append(list, profile)
	}
	return list, p.err()
}
