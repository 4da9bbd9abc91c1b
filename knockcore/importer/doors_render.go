// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"slices"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/command"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
)

// render writes the Caddyfile.
func (c *doors) render() (string, error) {
	c.rename()
	c.recognize()
	c.checkCommands()
	w := new(writer)
	w.header(c.o, c.program, c.notes...)
	client := c.o.Client
	if client == "" {
		client = c.program
	}
	if err := knockcore.ValidateID(client); err != nil {
		c.p.add(0, "client %q: %v", client, err)
	}
	w.open()
	w.open("knock")
	w.note("todo: a client for each person who knocks, with doors of their own; " + c.program + " knows none")
	w.open("client", client)
	w.line(nil, "methods", "port-sequence")
	if len(c.services) > 0 {
		names := []string{"services"}
		for _, s := range c.services {
			names = append(names, s.name)
		}
		w.line(nil, names...)
	}
	w.close()
	for _, s := range c.services {
		w.text("")
		if len(c.sets) == 0 {
			w.note(s.notes...)
		}
		w.open(append([]string{"service", s.name}, portTexts(s.ports)...)...)
		note := "safer: the kernel ends the window in time, whatever becomes of this program"
		if len(c.sets) == 0 {
			note += "; IPv6 knocks open IPv6"
		}
		w.line([]string{note}, "firewall", c.kind())
		w.close()
	}
	w.text("")
	w.note("safer: addresses that come later count too, and packets count once, as this host sees them")
	w.open("source", "nflog")
	w.line(nil, "methods", "port-sequence")
	if c.ifname != "" {
		w.line(nil, "interfaces", c.ifname)
	}
	w.close()
	for _, d := range c.list {
		w.text("")
		w.note(d.notes...)
		c.weaknesses(w, d)
		w.open("door", d.name)
		w.line(nil, "client", client)
		for _, o := range d.options {
			w.line(o.notes, o.args...)
		}
		c.effects(w, d)
		w.close()
	}
	if len(c.services) > 0 {
		w.text("")
		c.firewall(w)
	}
	w.close()
	w.close()
	return w.finish(c.p)
}

func (c *doors) kind() string {
	if c.ipset {
		return "ipset"
	}
	return "nftables"
}

func (c *doors) firewall(w *writer) {
	if len(c.sets) == 0 {
		w.line(nil, "firewall", "nftables")
		return
	}
	w.note("Your sets, and your rules that use them, stay what they are; the sets need timeouts.")
	w.open("firewall", c.kind())
	for _, set := range c.sets {
		w.line(nil, append([]string{"set"}, strings.Fields(set)...)...)
	}
	w.close()
}

// weaknesses repeats what loading would warn about.
func (c *doors) weaknesses(w *writer, d *door) {
	if len(d.steps) == 0 {
		return
	}
	probe := &sequence.Door{Name: d.name, Steps: d.steps, Flags: d.flags, Within: d.within, Idle: d.idle}
	if probe.Validate() != nil {
		return
	}
	for _, warning := range sequence.Warnings([]*sequence.Door{probe}) {
		w.note("weak: " + warning)
	}
}

// effects writes what the door opens, closes or runs.
func (c *doors) effects(w *writer, d *door) {
	switch {
	case d.service != "" && d.opens.add:
		notes := []string{"was: " + original(d.start)}
		if d.opens.iface != "" {
			notes = append(notes, "changed: on all interfaces, not on "+d.opens.iface+" only")
		}
		if d.setup != nil || d.teardown != nil {
			notes = append(notes, c.setupNotes(d)...)
		}
		w.line(notes, "service", d.service)
		switch {
		case d.ends:
			w.line([]string{"safer: a new knock moves the end; it closes also after a crash"}, "open_for", duration(d.openFor))
		default:
			w.line([]string{"changed: it was open until somebody closed it; now it ends by itself"}, "open_for", "8h")
		}
	case d.service != "":
		w.line([]string{"was: " + original(d.start)}, "service", d.service)
		w.line(nil, "close")
	case d.start == nil && d.stop == nil && !d.startSet6:
		w.note("It runs nothing: it is only logged, and the matcher `knocked` finds the address for service door:" + d.name + ".")
	default:
		c.commands(w, d)
	}
}

func (c *doors) commands(w *writer, d *door) {
	if d.setup != nil {
		w.line([]string{"changed: it should do no harm if it is run again, since it runs at every start"}, append([]string{"setup"}, d.setup...)...)
	}
	if d.teardown != nil {
		w.line([]string{"safer: it runs also when the door is removed by a reload"}, append([]string{"teardown"}, d.teardown...)...)
	}
	if d.start != nil {
		w.line(append(d.startNote, "safer: no shell unless one stands here, 10 s at most, a clean environment"), append([]string{"start"}, d.start...)...)
	}
	six := func(name string, set bool, argv []string) {
		switch {
		case set && argv == nil:
			w.line(nil, name, "off")
		case set:
			w.line(nil, append([]string{name}, argv...)...)
		}
	}
	six("start_ipv6", d.startSet6, d.start6)
	if d.stop != nil {
		w.line(append(d.stopNote, "safer: it runs also after a crash; a new knock moves it"), append([]string{"stop"}, d.stop...)...)
	}
	six("stop_ipv6", d.stopSet6, d.stop6)
	switch {
	case d.stop != nil || d.stopSet6:
		w.line(nil, "open_for", duration(d.openFor))
	default:
		w.line([]string{"changed: knocks that follow within this time run it once"}, "open_for", "1s")
	}
}

// setupNotes says what becomes of commands that a firewall makes unnecessary.
func (c *doors) setupNotes(d *door) (notes []string) {
	for name, argv := range map[string][]string{"setup": d.setup, "teardown": d.teardown} {
		if argv == nil {
			continue
		}
		if r := parseIPTables(argv, addressHolder); r != nil && r.drop && slices.Equal(r.ports, d.opens.ports) {
			notes = append(notes, "changed: "+name+" is left out, since the firewall closes the port itself and the DROP would stand in its way: "+strings.Join(argv, " "))
		} else {
			c.p.add(d.line, "door %s: there is no place for its %s beside a firewall, and it does not just drop the same port: %s", d.name, name, strings.Join(argv, " "))
		}
	}
	slices.Sort(notes)
	return notes
}

// checkCommands finds commands that would not load.
func (c *doors) checkCommands() {
	for _, d := range c.list {
		for _, argv := range [][]string{d.start, d.stop, d.start6, d.stop6} {
			if argv != nil {
				if _, err := command.Parse(argv, true); err != nil {
					c.p.add(d.line, "door %s: %v", d.name, err)
				}
			}
		}
		for _, argv := range [][]string{d.setup, d.teardown} {
			if argv != nil {
				if _, err := command.Parse(argv, false); err != nil {
					c.p.add(d.line, "door %s: %v", d.name, err)
				}
			}
		}
	}
}

// duration writes whole seconds where it can, as people do.
func duration(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// original writes a command as it was.
func original(argv []string) string {
	return strings.ReplaceAll(strings.Join(argv, " "), addressHolder, "%IP%")
}

func stepTexts(steps []sequence.Step) []string {
	texts := []string{"sequence"}
	for _, s := range steps {
		texts = append(texts, s.String())
	}
	return texts
}
