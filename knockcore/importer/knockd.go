// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
)

// knockdMaxLine is the longest line that knockd reads as one.
const knockdMaxLine = 4095

// Knockd makes a Caddyfile from a knockd.conf (port-sequences.md section 2).
func Knockd(b []byte, o Options) (string, error) {
	c := &doors{o: &o, p: o.problems(b), program: "knockd"}
	c.notes = append(c.notes, "",
		"safer in all doors: a packet that comes twice does not spoil the knock, users behind one",
		"address do not disturb each other, one client never loses the knock of another, times are",
		"exact to the millisecond, and a reload or a bad configuration loses nothing.")
	c.ifname = "eth0" // knockd's default
	var d *door
	options := false
	for n, text := range strings.Split(string(b), "\n") {
		n++
		if len(text) > knockdMaxLine {
			c.p.add(n, "the line is longer than %d bytes, so that knockd cuts it in two", knockdMaxLine)
			continue
		}
		text = strings.TrimSpace(text)
		switch {
		case text == "" || text[0] == '#':
			continue
		case strings.HasPrefix(text, "\uFEFF"):
			c.p.add(n, "a byte-order mark stands in front; knockd does not read such a file")
			continue
		case text[0] == '[':
			name := strings.TrimSuffix(text[1:], "]")
			if !strings.HasSuffix(text, "]") || name == "" {
				c.p.add(n, "%q is no section; expect [name]", text)
				continue
			}
			if options = name == "options"; !options {
				d = &door{name: name, line: n, openFor: 10 * time.Second}
				c.list = append(c.list, d)
			}
			continue
		}
		key, value, found := strings.Cut(text, "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		switch {
		case d == nil && !options:
			c.p.add(n, "%q stands before the first section", text)
		case options || key == "usesyslog":
			c.knockdOption(n, key, value, found)
		case !found:
			c.p.add(n, "%q is no directive; expect KEY = VALUE", text)
		default:
			if err := d.knockd(key, value); err != nil {
				c.p.add(n, "%w", err)
			}
		}
	}
	for _, d := range c.list {
		d.finishKnockd(c.p)
	}
	if len(c.list) == 0 {
		c.p.add(0, "there is no door in it")
	}
	return c.render()
}

func (c *doors) knockdOption(n int, key, value string, found bool) {
	switch {
	case key == "usesyslog" && !found:
		c.notes = append(c.notes, "changed: UseSyslog: knocks appear in Caddy's log")
	case key == "usesyslog":
		c.p.add(n, "UseSyslog takes no value; knockd refuses it too")
	case key == "logfile" && found:
		c.notes = append(c.notes, "changed: LogFile "+value+": knocks appear in Caddy's log, with `log` in the global options where you like")
	case key == "pidfile" && found:
		c.notes = append(c.notes, "changed: PidFile "+value+": `caddy run --pidfile` writes one")
	case key == "interface" && found:
		c.ifname = value
	default:
		c.p.add(n, "unknown global option %q; expect UseSyslog, LogFile, PidFile or Interface", key)
	}
}

// knockd reads a directive of a door.
func (d *door) knockd(key, value string) (err error) {
	switch key {
	case "sequence":
		if d.steps, err = sequence.ParseSequence(value); err != nil {
			return fmt.Errorf("sequence %q: %w; knockd may read a number out of it, or port 0: write what is meant", value, err)
		}
		d.replace("sequence_file", nil, stepTexts(d.steps)...)
	case "one_time_sequences":
		d.steps = nil
		d.replace("sequence", []string{"safer: a used sequence is never good again, and when the last one is used up only this door closes"}, "sequence_file", value)
	case "seq_timeout", "timeout":
		seconds := atoi(value)
		d.within = time.Duration(seconds) * time.Second
		notes := oddNumber(value, seconds)
		if seconds <= 0 {
			d.within = -1
			return nil
		}
		if d.within > sequence.MaxWithin {
			d.within = sequence.MaxWithin
			notes = append(notes, "changed: it was longer")
		}
		d.replace("", notes, "within", duration(d.within))
	case "tcpflags":
		flags, err := sequence.ParseFlags(value)
		if err != nil || strings.ContainsAny(value, " \t") {
			return fmt.Errorf("TCPFlags %q: %w", value, errors.Join(err, errors.New("expect flags such as syn,!ack, without blanks")))
		}
		d.flags = d.flags.And(flags)
		d.replace("", nil, "flags", d.flags.String())
	case "start_command", "command":
		d.start, d.startNote, err = knockdCommand(value)
	case "start_command_6", "command_6":
		d.start6, _, err = knockdCommand(value)
		d.startSet6 = true
	case "stop_command":
		d.stop, d.stopNote, err = knockdCommand(value)
	case "stop_command_6":
		d.stop6, _, err = knockdCommand(value)
		d.stopSet6 = true
	case "cmd_timeout":
		seconds := atoi(value)
		if seconds < 0 {
			return fmt.Errorf("a Cmd_Timeout of %s means never; say how long it may stay open", value)
		}
		d.openFor = max(time.Second, time.Duration(seconds)*time.Second)
	case "target":
		addr, err := netip.ParseAddr(value)
		if err != nil {
			return fmt.Errorf("%q is no address for Target; knockd does not start with it either", value)
		}
		var notes []string
		if addr.String() != value {
			notes = []string{"changed: in knockd this door can never open, since it compares the text " + value}
		}
		d.replace("", notes, "target", addr.String())
	default:
		return fmt.Errorf("unknown directive %q", key)
	}
	return err
}

// replace sets an option: what is given last counts, also instead of another one.
func (d *door) replace(instead string, notes []string, args ...string) {
	kept := d.options[:0]
	for _, o := range d.options {
		if o.args[0] != args[0] && o.args[0] != instead {
			kept = append(kept, o)
		}
	}
	d.options = kept
	d.option(notes, args...)
}

func (d *door) finishKnockd(p *problems) {
	oneTime := false
	for _, o := range d.options {
		oneTime = oneTime || o.args[0] == "sequence_file"
	}
	if len(d.steps) == 0 && !oneTime {
		p.add(d.line, "door %s has no sequence", d.name)
	}
	if d.within < 0 {
		if d.within = 0; len(d.steps) != 1 {
			p.add(d.line, "door %s: with such a Seq_Timeout it can never open", d.name)
		}
	}
	if d.start == nil && !d.startSet6 {
		if d.stop != nil || d.stopSet6 {
			d.notes = append(d.notes, "changed: its Stop_Command is left out: without a Start_Command it never runs")
		}
		d.stop, d.stop6, d.stopSet6 = nil, nil, false
	}
	d.ends = d.stop != nil
}

// knockdCommand makes an argument vector of a shell's command.
func knockdCommand(text string) (argv, notes []string, err error) {
	if text == "" {
		return nil, nil, nil
	}
	words, needsShell, err := splitShell(text)
	if err != nil {
		return nil, nil, fmt.Errorf("command %s: %w", text, err)
	}
	if needsShell {
		notes = []string{"It needs a shell, as in knockd; nothing but the address is put into it."}
		words = []string{"/bin/sh", "-c", text}
	}
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "%IP%", addressHolder)
	}
	return words, notes, nil
}

// atoi reads a number as C's atoi does.
func atoi(s string) int {
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && (s[end] == '-' || s[end] == '+')) {
		end++
	}
	n, err := strconv.ParseInt(s[:end], 10, 32)
	if errors.Is(err, strconv.ErrRange) {
		return int(n)
	}
	if err != nil {
		return 0
	}
	return int(n)
}

func oddNumber(text string, n int) []string {
	if strconv.Itoa(n) == text {
		return nil
	}
	return []string{fmt.Sprintf("It said %q, which knockd reads as %d.", text, n)}
}
