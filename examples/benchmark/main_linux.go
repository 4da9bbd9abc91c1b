// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Command benchmark compares caddy-knock with others who do the same, between
// network namespaces of this machine: nothing leaves it, and nothing of it is
// changed. It needs root and the programs that the README names.
//
//	go run ./examples/benchmark -only latency
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// options are what the command line says.
type options struct {
	only    []string
	rounds  int
	windows int
	length  time.Duration
	bestOf  int
	caddy   string // the ready Caddy; built if empty
	client  string // caddy-knock; built if empty
}

// benchmark measures something and prints a table.
type benchmark struct {
	name string
	run  func(context.Context, options, io.Writer) error
}

// benchmarks are those that there are, in the order in which they run.
var benchmarks = []benchmark{
	{"latency", latency},
	{"forward", forward},
}

func main() {
	var o options
	var only string
	var names []string
	for _, b := range benchmarks {
		names = append(names, b.name)
	}
	flag.StringVar(&only, "only", strings.Join(names, ","), "which to run")
	flag.IntVar(&o.rounds, "rounds", 20, "how often each is measured")
	flag.IntVar(&o.windows, "windows", 100_000, "forward: how many windows are open")
	flag.DurationVar(&o.length, "time", 2*time.Second, "forward: how long each transfer takes")
	flag.IntVar(&o.bestOf, "best-of", 3, "forward: how many transfers, of which the fastest counts")
	flag.StringVar(&o.caddy, "caddy", "", "the Caddy to use (default: built from this module)")
	flag.StringVar(&o.client, "client", "", "the caddy-knock to use (default: built from this module)")
	flag.Parse()
	o.only = strings.Split(only, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchmark:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("network namespaces need root")
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(benchmarks, func(b benchmark) bool { return b.name == name }) {
			return fmt.Errorf("there is no benchmark %q", name)
		}
	}
	for _, b := range benchmarks {
		if !slices.Contains(o.only, b.name) {
			continue
		}
		fmt.Fprintf(out, "== %s\n", b.name)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		if err := b.run(ctx, o, w); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}
