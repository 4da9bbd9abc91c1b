// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
)

// report is what was measured. As JSON it has every single value.
type report struct {
	Machine machine
	Seconds float64
	Lines   []line
	Notes   []string

	part string
	out  io.Writer
}

// line is one quantity of one of those who are compared.
type line struct {
	Part, What, Unit, Who string
	// Values are those of the rounds, in order.
	Values []float64
	Median float64
	// Ratio is the median of the rounds' ratios, ours to theirs; 0 for ours.
	Ratio float64 `json:",omitempty"`
	// Goal is what was aimed at; Holds says whether it was reached.
	Goal  string `json:",omitempty"`
	Holds *bool  `json:",omitempty"`
}

// quantity is something that is measured.
type quantity struct {
	name, unit string
	less       bool // less is better
}

// none stands for a value that is not to be had of a subject.
const none = math.MinInt64

// subject is one of those who are compared; the first is ours.
type subject struct {
	name string
	// goals are what the ratio of ours to it shall reach, of ours the value itself, by
	// the quantities' numbers.
	goals map[int]float64
	// measure does it once and returns a value for each quantity, none where it is not
	// to be had. An error that wraps errMissing leaves the subject out.
	measure func(context.Context) ([]float64, error)
}

// compare measures all subjects in turns, so that whatever else the machine does
// meets all of them.
func (r *report) compare(ctx context.Context, rounds int, what string, quantities []quantity, subjects ...subject) error {
	values := make([][][]float64, len(subjects)) // by subject and round
	missing := make([]bool, len(subjects))
	for round := range rounds {
		for i := range subjects {
			i = (i + round) % len(subjects)
			if missing[i] {
				continue
			}
			v, err := subjects[i].measure(ctx)
			switch {
			case errors.Is(err, errMissing):
				missing[i] = true
				r.note("%s: %v", subjects[i].name, err)
				continue
			case err == nil && len(v) != len(quantities):
				err = fmt.Errorf("%d values for %d quantities", len(v), len(quantities))
				fallthrough
			case err != nil:
				return fmt.Errorf("%s, %s: %w", what, subjects[i].name, err)
			}
			values[i] = append(values[i], v)
		}
	}
	for q, quantity := range quantities {
		for i, s := range subjects {
			if missing[i] || values[i][0][q] == none {
				continue
			}
			l := line{Part: r.part, What: strings.Join(nonempty(what, quantity.name), ": "), Unit: quantity.unit, Who: s.name}
			var ratios []float64
			for round, v := range values[i] {
				l.Values = append(l.Values, v[q])
				if i > 0 && !missing[0] && values[0][round][q] > 0 && v[q] > 0 {
					ratios = append(ratios, values[0][round][q]/v[q])
				}
			}
			l.Median = median(l.Values)
			reached := l.Median
			if ratios != nil {
				l.Ratio = median(ratios)
				reached = l.Ratio
			}
			if goal, ok := s.goals[q]; ok && (i == 0 || ratios != nil) {
				holds := reached >= goal
				l.Goal = "≥ " + figure(goal)
				if quantity.less {
					holds = reached <= goal
					l.Goal = "≤ " + figure(goal)
				}
				l.Holds = &holds
			}
			r.Lines = append(r.Lines, l)
			fmt.Fprintln(r.out, &l)
		}
	}
	return nil
}

// note tells what was left out, and why.
func (r *report) note(format string, args ...any) {
	note := r.part + ": " + fmt.Sprintf(format, args...)
	r.Notes = append(r.Notes, note)
	fmt.Fprintln(os.Stderr, note)
}

const tableHead = "| part | what | who | median | of | ours ÷ theirs | goal | holds |\n|---|---|---|---|---|---|---|---|\n"

// String is the line of the Markdown table.
func (l *line) String() string {
	ratio, holds := "", ""
	if l.Ratio != 0 {
		ratio = figure(l.Ratio)
	}
	if l.Holds != nil {
		holds = map[bool]string{true: "yes", false: "**no**"}[*l.Holds]
	}
	spread := figure(slices.Min(l.Values)) + " – " + figure(slices.Max(l.Values))
	return strings.Join([]string{"| " + l.Part, l.What, l.Who, figure(l.Median) + " " + l.Unit, spread, ratio, l.Goal, holds + " |"}, " | ")
}

// places in a file between which the table stands.
const (
	placeBegin = "<!-- the last run -->\n"
	placeEnd   = "<!-- end of the last run -->\n"
)

// write writes the files that were asked for.
func (r *report) write(o options) error {
	if o.json != "" {
		text, err := json.MarshalIndent(r, "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.markdown == "" {
		return nil
	}
	old, err := os.ReadFile(o.markdown)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	before, rest, _ := bytes.Cut(old, []byte(placeBegin))
	_, after, found := bytes.Cut(rest, []byte(placeEnd))
	text := r.markdown()
	if found {
		text = string(before) + placeBegin + "\n" + text + "\n" + placeEnd + string(after)
	}
	return os.WriteFile(o.markdown, []byte(text), 0o644)
}

// markdown is the table with what there is to know about it.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s Took %.0f s.\n\n%s", &r.Machine, r.Seconds, tableHead)
	for i := range r.Lines {
		fmt.Fprintln(&b, &r.Lines[i])
	}
	for i, note := range r.Notes {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "- %s\n", note)
	}
	return b.String()
}

func nonempty(texts ...string) []string {
	return slices.DeleteFunc(texts, func(s string) bool { return s == "" })
}

// median is the one in the middle, or between the two there.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// figure writes a number with three digits that count, and commas by thousands.
func figure(v float64) string {
	switch {
	case v >= 1000:
		digits := fmt.Sprintf("%.0f", v)
		for i := len(digits) - 3; i > 0; i -= 3 {
			digits = digits[:i] + "," + digits[i:]
		}
		return digits
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}
