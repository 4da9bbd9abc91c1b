// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
)

// noteworthy is a line of the result with what is to be said about it.
type noteworthy struct {
	notes []string
	args  []string
}

// door is a door of knockd or knock-rs on its way.
type door struct {
	name    string
	line    int
	notes   []string
	steps   []sequence.Step
	flags   sequence.Flags
	within  time.Duration
	idle    time.Duration
	openFor time.Duration
	options []noteworthy // sequence, flags, within and such, in order
	// The commands, as argument vectors; nil where there is none. startSet6 and
	// stopSet6 say that there is one for IPv6, if only an empty one.
	start, stop, start6, stop6 []string
	startSet6, stopSet6        bool
	startNote, stopNote        []string
	setup, teardown            []string
	// ends says that the original closes by itself after openFor.
	ends bool
	// What the commands come to, if they are common ones.
	opens, closes *rule
	service       string
}

func (d *door) option(notes []string, args ...string) {
	d.options = append(d.options, noteworthy{notes, args})
}

// doors is a configuration of knockd or knock-rs on its way.
type doors struct {
	o        *Options
	p        *problems
	program  string
	list     []*door
	services []serviceBlock
	sets     []string // of nftables
	ipset    bool     // the sets are ipset's
	ifname   string   // "" means all
	notes    []string // on the whole
}

type serviceBlock struct {
	name  string
	ports []knockcore.PortRange
	notes []string
}

const addressHolder = "{knock.address}"

// rename makes the names of doors unique and fit.
func (c *doors) rename() {
	seen := make(map[string]bool)
	for _, d := range c.list {
		name := strings.Join(strings.Fields(d.name), "-")
		if name != d.name {
			d.notes = append(d.notes, fmt.Sprintf("changed: the name was %q", d.name))
		}
		if err := knockcore.ValidateID(name); err != nil {
			c.p.add(d.line, "door %q: %v", d.name, err)
		}
		for n := 2; seen[name]; n++ {
			if name = fmt.Sprintf("%s-%d", strings.Join(strings.Fields(d.name), "-"), n); !seen[name] {
				d.notes = append(d.notes, "changed: a name of its own, since two doors had the same")
			}
		}
		seen[name] = true
		d.name = name
	}
}

// recognize finds doors whose commands are a firewall's job.
func (c *doors) recognize() {
	var guarded []knockcore.PortRange
	for _, text := range c.o.Ports {
		r, err := knockcore.ParsePortRange(text)
		if err != nil {
			c.p.add(0, "%w", err)
			return
		}
		guarded = append(guarded, r)
	}
	for _, d := range c.list {
		if parseIPTables(d.start, addressHolder) != nil {
			guarded = nil // a table of ours and sets of yours don't go together
		}
	}
	for _, d := range c.list {
		d.opens = parseRule(d.start, guarded)
		d.closes = parseRule(d.stop, guarded)
		_, _, _, isNft := parseNftSet(d.start, addressHolder)
		_, _, _, isIPSet := parseIPSet(d.start)
		if (isNft || isIPSet) && d.opens == nil {
			d.startNote = append(d.startNote, "todo: with --port tcp/22, if that is what the set guards, this becomes a service whose windows the kernel ends")
		}
		if d.opens == nil || d.opens.six || d.opens.drop || d.stop != nil && !d.closes.undoes(d.opens) && d.opens.add {
			d.opens, d.closes = nil, nil
			continue
		}
		if d.startSet6 {
			six := parseRule(d.start6, guarded)
			if six == nil || !six.six || six.add != d.opens.add || !slices.Equal(six.ports, d.opens.ports) {
				d.opens, d.closes = nil, nil
			}
		}
	}
	for _, d := range c.list {
		if d.opens != nil && d.opens.add {
			d.service = c.serviceOf(d.opens.ports)
			if !d.ends && d.opens.timeout > 0 {
				d.ends, d.openFor = true, d.opens.timeout
			}
			for _, r := range []*rule{d.opens, parseRule(d.start6, guarded)} {
				if r != nil && r.set != "" && !slices.Contains(c.sets, r.set) {
					c.sets = append(c.sets, r.set)
				}
			}
		}
	}
	c.oneKind()
	// Doors that close belong to one that opens.
	for _, d := range c.list {
		if d.opens == nil || d.opens.add {
			continue
		}
		if d.stop != nil {
			d.opens = nil
			continue
		}
		for _, other := range c.list {
			if d.opens.undoes(other.opens) && other.service != "" {
				d.service = other.service
			}
		}
		if d.service == "" {
			d.opens = nil
		}
	}
}

// oneKind sees to it that a service has one firewall: where doors use sets of both
// nftables and ipset for the same ports, those of ipset stay commands.
func (c *doors) oneKind() {
	nft := false
	for _, d := range c.list {
		nft = nft || d.opens != nil && d.opens.set != "" && !d.opens.ipset
	}
	for _, d := range c.list {
		if d.opens == nil || !d.opens.ipset {
			continue
		}
		if nft {
			c.sets = slices.DeleteFunc(c.sets, func(set string) bool { return set == d.opens.set })
			d.opens, d.closes, d.service = nil, nil, ""
		} else {
			c.ipset = true
		}
	}
}

func (c *doors) serviceOf(ports []knockcore.PortRange) string {
	for _, s := range c.services {
		if slices.Equal(s.ports, ports) {
			return s.name
		}
	}
	s := serviceBlock{name: serviceName(ports), ports: ports, notes: []string{dropNote(ports)}}
	c.services = append(c.services, s)
	return s.name
}
