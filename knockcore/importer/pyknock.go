// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/command"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// Pyknock makes a Caddyfile from the arguments of pyknock's server
// (pyknock-datagram.md section 3).
func Pyknock(args []string, o Options) (string, error) {
	p := &problems{file: o.File}
	fs := flag.NewFlagSet("pyknock", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	bind := fs.String("b", "", "")
	port := fs.Uint("p", 60120, "")
	drift := fs.Float64("t", 60, "")
	if err := fs.Parse(args); err != nil {
		return "", fmt.Errorf("pyknock's arguments: %w", err)
	}
	if fs.NArg() != 3 {
		return "", errors.New("pyknock's server takes three arguments behind its options: KEY OPEN_COMMAND CLOSE_COMMAND")
	}
	if *port == 0 || *port > 65535 {
		p.add(0, "-p %d is no port", *port)
	}
	if !(*drift > 0 && *drift <= 86400) {
		p.add(0, "-t %g is no time", *drift)
		*drift = 60
	}
	listen := fmt.Sprintf(":%d", *port)
	if *bind != "" {
		addr, err := netip.ParseAddr(*bind)
		if err != nil {
			p.add(0, "-b %q is no address", *bind)
		}
		listen = netip.AddrPortFrom(addr, uint16(*port)).String()
	}
	client := o.Client
	if client == "" {
		client = "pyknock"
	}
	key, err := wire.ParsePyknockKey(fs.Arg(0))
	if err != nil {
		p.add(0, "the key: %w", err)
	}
	var guarded []knockcore.PortRange
	for _, text := range o.Ports {
		r, err := knockcore.ParsePortRange(text)
		if err != nil {
			p.add(0, "%w", err)
			continue
		}
		guarded = append(guarded, r)
	}
	open, openNotes := pyknockCommand(p, fs.Arg(1))
	closes, closeNotes := pyknockCommand(p, fs.Arg(2))
	opened, closed := parseRule(open, guarded), parseRule(closes, guarded)
	firewall := opened != nil && opened.add && opened.set == "" && closed.undoes(opened)
	switch {
	case firewall:
		guarded = opened.ports
	case len(guarded) == 0:
		p.add(0, "the commands do not say which ports they guard; add --port tcp/22, say")
		guarded = []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 22, High: 22}}
	}

	w := new(writer)
	w.header(&o, "pyknock",
		"safer: a datagram is good once, no datagram ends the server, and what is open closes by itself.")
	w.open()
	w.open("knock")
	w.note("todo: a client with a key of its own for each person")
	w.open("client", client)
	w.line(nil, "methods", "pyknock")
	w.line([]string{"todo: put the key into a file that only Caddy may read and write {file./path}"}, "pyknock", fs.Arg(0))
	if key.Strong() != nil {
		w.line([]string{"todo: the key is shorter than 16 bytes, so that one captured datagram is enough to guess it"}, "allow_weak")
	}
	name := serviceName(guarded)
	w.line(nil, "services", name)
	w.line([]string{"As in pyknock, a datagram may name another address than the one that it comes from; leave it out if nobody needs that."}, "allow_remote", "/32", "/128")
	w.close()
	w.text("")
	kind := "exec"
	var notes []string
	if firewall {
		kind = "nftables"
		notes = []string{"was: " + fs.Arg(1), "safer: the kernel ends the window in time", dropNote(guarded)}
	}
	w.open(append([]string{"service", name}, portTexts(guarded)...)...)
	w.line([]string{"changed: it was open until somebody closed it; now it ends by itself"}, "open_for", "8h")
	w.line(notes, "firewall", kind)
	w.close()
	w.text("")
	w.open("source", "udp", listen)
	w.line(nil, "methods", "pyknock")
	w.line(nil, "pyknock_window", duration(time.Duration(*drift*float64(time.Second)).Round(time.Millisecond)))
	w.close()
	w.text("")
	if firewall {
		w.line(nil, "firewall", "nftables")
	} else {
		w.open("firewall", "exec")
		w.line(append(openNotes, "safer: other knocks do not wait for it, 10 s at most"), append([]string{"open"}, open...)...)
		w.line(append(closeNotes, "safer: it runs also when the time is over, and after a crash"), append([]string{"close"}, closes...)...)
		w.close()
	}
	w.close()
	w.close()
	return w.finish(p)
}

// pyknockCommand makes an argument vector of a template for a shell.
func pyknockCommand(p *problems, text string) (argv, notes []string) {
	// What is none of pyknock's names is the shell's, which may be one of its own.
	replaced := strings.NewReplacer("$$", "$", "${ip}", addressHolder, "$ip", addressHolder, "${af}", "{knock.inet}", "$af", "{knock.inet}",
		"${cmd}", "{knock.action}", "$cmd", "{knock.action}").Replace(text)
	words, needsShell, err := splitShell(replaced)
	if err != nil {
		p.add(0, "command %s: %w", text, err)
		return []string{"false"}, nil
	}
	if needsShell {
		notes = []string{"It needs a shell, as in pyknock; nothing but the address is put into it."}
		words = []string{"/bin/sh", "-c", replaced}
	}
	if len(words) == 0 {
		return []string{"true"}, nil
	}
	if _, err := command.Parse(slices.Clone(words), true); err != nil {
		p.add(0, "%w", err)
	}
	return words, notes
}
