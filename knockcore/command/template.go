// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Action is what a command is run for.
type Action string

// The actions.
const (
	ActionOpen     Action = "open"
	ActionClose    Action = "close"
	ActionSetup    Action = "setup"
	ActionTeardown Action = "teardown"
)

// Values are what the placeholders stand for.
type Values struct {
	Action  Action
	Prefix  netip.Prefix // zero for setup and teardown
	Client  string
	Service string
	Port    knockcore.PortRange
}

// placeholder is one of the names in braces.
type placeholder struct {
	value func(*Values) string
	// name says that it stands for a name, which may hold almost anything.
	name bool
	// window says that it has a value only while a window opens or closes, port
	// that it has one for each port.
	window, port bool
}

var placeholders = map[string]placeholder{
	"knock.address": {window: true, value: func(v *Values) string {
		if v.Prefix.IsSingleIP() {
			return v.Prefix.Addr().String()
		}
		return v.Prefix.String()
	}},
	"knock.prefix":     {window: true, value: func(v *Values) string { return v.Prefix.String() }},
	"knock.family":     {window: true, value: func(v *Values) string { return family(v, "ipv4", "ipv6") }},
	"knock.inet":       {window: true, value: func(v *Values) string { return family(v, "inet", "inet6") }},
	"knock.client":     {window: true, name: true, value: func(v *Values) string { return v.Client }},
	"knock.service":    {name: true, value: func(v *Values) string { return v.Service }},
	"knock.protocol":   {port: true, value: func(v *Values) string { return v.Port.Protocol.String() }},
	"knock.port":       {port: true, value: func(v *Values) string { return strings.TrimPrefix(v.Port.String(), v.Port.Protocol.String()+"/") }},
	"knock.port_first": {port: true, value: func(v *Values) string { return strconv.Itoa(int(v.Port.Low)) }},
	"knock.port_last":  {port: true, value: func(v *Values) string { return strconv.Itoa(int(v.Port.High)) }},
	"knock.action":     {value: func(v *Values) string { return string(v.Action) }},
}

const placeholderList = "{knock.address}, {knock.prefix}, {knock.family}, {knock.inet}, {knock.client}, {knock.service}, " +
	"{knock.protocol}, {knock.port}, {knock.port_first}, {knock.port_last} and {knock.action}"

func family(v *Values, four, six string) string {
	if v.Prefix.Addr().Is4() {
		return four
	}
	return six
}

// Template is a command with placeholders.
type Template struct {
	args []argument
	port bool
}

// argument is the parts of an argument in order: text, or a placeholder.
type argument []part

type part struct {
	text string
	hold *placeholder
}

// maxArguments bounds the arguments of a command.
const maxArguments = 1024

// Parse reads an argument vector, the program first, for actions of windows or,
// with window false, for setup and teardown.
func Parse(args []string, window bool) (*Template, error) {
	if len(args) == 0 || args[0] == "" {
		return nil, errors.New("a command needs a program")
	}
	if len(args) > maxArguments {
		return nil, fmt.Errorf("a command has %d arguments at most, not %d", maxArguments, len(args))
	}
	t := new(Template)
	for i, text := range args {
		if strings.ContainsRune(text, 0) {
			return nil, fmt.Errorf("argument %d of command %s has a zero byte", i, args[0])
		}
		arg, err := parseArgument(text, window)
		if err != nil {
			return nil, fmt.Errorf("command %s: argument %q: %w", args[0], text, err)
		}
		for _, p := range arg {
			if p.hold != nil && i == 0 {
				return nil, fmt.Errorf("command %s: the program can't be a placeholder", args[0])
			}
			t.port = t.port || p.hold != nil && p.hold.port
		}
		t.args = append(t.args, arg)
	}
	return t, nil
}

func parseArgument(text string, window bool) (argument, error) {
	var arg argument
	for rest := text; rest != ""; {
		start := strings.IndexByte(rest, '{')
		end := -1
		if start >= 0 {
			end = strings.IndexByte(rest[start:], '}')
		}
		if end < 0 || !looksLikeName(rest[start+1:start+end]) {
			cut := len(rest)
			if start >= 0 {
				cut = start + 1
			}
			arg, rest = append(arg, part{text: rest[:cut]}), rest[cut:]
			continue
		}
		name := rest[start+1 : start+end]
		p, ok := placeholders[name]
		switch {
		case !ok:
			return nil, fmt.Errorf("unknown placeholder {%s}; expect %s", name, placeholderList)
		case p.window && !window:
			return nil, fmt.Errorf("{%s} has no value here: nobody has knocked yet", name)
		case p.name && text != "{"+name+"}":
			return nil, fmt.Errorf("{%s} is a name, which may hold anything; let it be an argument of its own", name)
		}
		if start > 0 {
			arg = append(arg, part{text: rest[:start]})
		}
		arg, rest = append(arg, part{hold: &p}), rest[start+end+1:]
	}
	return arg, nil
}

// looksLikeName reports whether text in braces is meant as a placeholder.
func looksLikeName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '_')
	}) < 0 && ('a' <= s[0]|0x20 && s[0]|0x20 <= 'z')
}

// Program is the program as it was written.
func (t *Template) Program() string {
	s := ""
	for _, p := range t.args[0] {
		s += p.text
	}
	return s
}

// Expand makes the argument vectors: one, or one for each port if the command
// asks for ports. A name that a program would take for an option is an error.
func (t *Template) Expand(v Values, ports []knockcore.PortRange) ([][]string, error) {
	if !t.port {
		argv, err := t.expand(&v)
		return [][]string{argv}, err
	}
	var all [][]string
	for _, v.Port = range ports {
		argv, err := t.expand(&v)
		if err != nil {
			return nil, err
		}
		all = append(all, argv)
	}
	return all, nil
}

func (t *Template) expand(v *Values) ([]string, error) {
	argv := make([]string, len(t.args))
	for i, arg := range t.args {
		var b strings.Builder
		for _, p := range arg {
			if p.hold == nil {
				b.WriteString(p.text)
				continue
			}
			value := p.hold.value(v)
			if p.hold.name && strings.HasPrefix(value, "-") {
				return nil, fmt.Errorf("the name %q would be an option of the command", value)
			}
			b.WriteString(value)
		}
		argv[i] = b.String()
	}
	return argv, nil
}
