// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

// Command benchmark compares caddy-knock with others who do the same, and with
// the limit: what the machine does without anything in the way. It works on
// loopback and between network namespaces of its own: nothing leaves the machine,
// and nothing of it is changed. The README says what each part needs.
//
//	go run ./examples/benchmark
//	go run ./examples/benchmark -only relay,frames -json /tmp/result.json
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are what the command line says.
type options struct {
	only     []string
	rounds   int
	scale    float64
	caddy    string // the ready Caddy; built if empty
	client   string // caddy-knock; built if empty
	markdown string
	json     string
}

// some is n at full scale, and less where a moment is enough.
func (o options) some(n int) int { return max(1, int(float64(n)*o.scale)) }

// lasting is how long something is measured.
func (o options) lasting(d time.Duration) time.Duration {
	return max(20*time.Millisecond, time.Duration(float64(d)*o.scale))
}

// part measures something.
type part struct {
	name string
	root bool // needs network namespaces
	run  func(context.Context, options, *report) error
}

// parts are those that there are, in the order in which they run.
var parts = []part{
	{"relay", false, relay},
	{"connections", false, connections},
	{"idle", false, idle},
	{"frames", false, frames},
	{"syn", false, syns},
	{"datagrams", false, datagrams},
	{"latency", true, latency},
	{"windows", true, windows},
	{"forward", true, forward},
	{"lookup", false, lookup},
	{"start", false, start},
	{"store", false, store},
}

// errMissing is what a part, or one of those who are compared, lacks.
var errMissing = errors.New("left out")

func main() {
	var o options
	var only string
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	flag.StringVar(&only, "only", strings.Join(names, ","), "which parts to run")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each is measured, in turns")
	flag.Float64Var(&o.scale, "scale", 1, "how much is done in each round; below 1 for a quick look")
	flag.StringVar(&o.caddy, "caddy", "", "the Caddy to use (default: built from this module)")
	flag.StringVar(&o.client, "client", "", "the caddy-knock to use (default: built from this module)")
	flag.StringVar(&o.markdown, "markdown", "", "write the table to this file; where the file has a place for it, only there")
	flag.StringVar(&o.json, "json", "", "write every single value to this file")
	flag.Parse()
	o.only = strings.Split(only, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchmark:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	for _, name := range o.only {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q", name)
		}
	}
	tools, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer tools.close()
	if o.caddy, err = tools.build(o.caddy, "xcaddy"); err != nil {
		return err
	}
	if o.client, err = tools.build(o.client, "knockcore/cmd/caddy-knock"); err != nil {
		return err
	}
	r := &report{out: out, Machine: thisMachine(ctx, o)}
	fmt.Fprintf(out, "%s\n\n%s", &r.Machine, tableHead)
	begin := time.Now()
	for _, p := range parts {
		if !slices.Contains(o.only, p.name) {
			continue
		}
		r.part = p.name
		var err error
		if p.root {
			err = mayUseNamespaces()
		}
		if err == nil {
			err = awaitPorts(ctx)
		}
		if err == nil {
			err = p.run(ctx, o, r)
		}
		switch {
		case errors.Is(err, errMissing):
			r.note("%v", err)
		case err != nil:
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	r.Seconds = time.Since(begin).Seconds()
	return r.write(o)
}
