// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"strings"
)

// writer writes a Caddyfile.
type writer struct {
	b      strings.Builder
	indent int
	bad    []string // arguments that no Caddyfile can hold
}

func (w *writer) text(s string) {
	if s == "" {
		w.b.WriteByte('\n')
		return
	}
	w.b.WriteString(strings.Repeat("\t", w.indent) + s + "\n")
}

// note writes comments; line breaks and control characters become blanks.
func (w *writer) note(notes ...string) {
	for _, n := range notes {
		w.text(strings.TrimSpace("# " + strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, n)))
	}
}

// line writes an option with its arguments, and the notes on it above.
func (w *writer) line(notes []string, args ...string) {
	w.note(notes...)
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = w.quote(a)
	}
	w.text(strings.Join(quoted, " "))
}

func (w *writer) open(args ...string) {
	quoted := make([]string, len(args), len(args)+1)
	for i, a := range args {
		quoted[i] = w.quote(a)
	}
	w.text(strings.TrimSpace(strings.Join(append(quoted, "{"), " ")))
	w.indent++
}

func (w *writer) close() {
	w.indent--
	w.text("}")
}

// quote writes an argument so that the Caddyfile means it as it is.
func (w *writer) quote(s string) string {
	if strings.Contains(s, "{$") || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		w.bad = append(w.bad, s)
	}
	plain := s != "" && !strings.ContainsAny(s, " \"`\\#") && s != "{" && s != "}"
	switch {
	case plain:
		return s
	case !strings.Contains(s, "`"):
		return "`" + s + "`"
	case strings.Contains(s, `\`):
		w.bad = append(w.bad, s)
		return "``"
	default:
		return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
	}
}

func (w *writer) finish(p *problems) (string, error) {
	for _, s := range w.bad {
		p.add(0, "%.60q can't stand in a Caddyfile; put it into a script or a file of its own", s)
	}
	if err := p.err(); err != nil {
		return "", err
	}
	return w.b.String(), nil
}

// header says where the configuration comes from.
func (w *writer) header(o *Options, program string, more ...string) {
	from := o.File
	if from == "" {
		from = program
	}
	w.note(fmt.Sprintf("Made from %s by `caddy knock import %s`. Read the comments, then try it with", from, program),
		"`caddy validate`. \"changed\" means something else than before, \"safer\" the same without",
		"a weakness, \"todo\" is yours to do.")
	w.note(more...)
}
