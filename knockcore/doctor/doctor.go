// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package doctor looks at a host and its configuration for what makes a gate less
// closed, or a client more locked out, than it seems, and proves from outside that
// closed is closed. It changes nothing but for the moment of the proof, which makes
// a network namespace with a link to this host.
package doctor

import (
	"context"
	"slices"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	// Problem is a hole, or keeps clients out.
	Problem Level = "problem"
	// Warning may become one.
	Warning Level = "warning"
	// Note is worth knowing.
	Note Level = "note"
)

// Finding is one thing that was found.
type Finding struct {
	// ID names the kind of finding: see the README.
	ID    string `json:"id"`
	Level Level  `json:"level"`
	// Subject is what it is about: a service, a file, a table; "" for the host.
	Subject string `json:"subject,omitempty"`
	// Text says what was found, Advice what to do.
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"`
}

// Verdict is what a stranger sees of a port.
type Verdict string

// The verdicts.
const (
	// Closed is a port that nobody answers at, or that refuses.
	Closed Verdict = "closed"
	// Open is a port that takes the connection, or answers the datagram.
	Open Verdict = "open"
	// Silent is a UDP port from which nothing came back: closed, or not talkative.
	Silent Verdict = "silent"
	// Unproved is a port that could not be tried.
	Unproved Verdict = "unproved"
)

// Proof is what a stranger saw of a service.
type Proof struct {
	Service string  `json:"service"`
	Port    string  `json:"port"`   // as tcp/22
	Family  string  `json:"family"` // ipv4 or ipv6
	Verdict Verdict `json:"verdict"`
	// Detail is how it showed, or why it could not be tried.
	Detail string `json:"detail,omitempty"`
	// Guarded says that an open port is as it should be: no firewall is to close it,
	// and Caddy asks there for a frame, or for a grant.
	Guarded bool `json:"guarded,omitempty"`
}

// Plan is what the doctor needs to know of the configuration.
type Plan struct {
	// Services are those of the knock app.
	Services []*knockcore.Service
	// Firewalls are the firewalls that services use, by their names.
	Firewalls map[string]Firewall
	// Guarded reports services that something else guards: a frame, a matcher.
	Guarded func(service string) bool
	// JSON is the whole configuration of Caddy.
	JSON []byte
	// Admin is the address of Caddy's admin endpoint, "" if it has none.
	Admin string
	// Sources are the names of the modules that bring knocks.
	Sources []string
}

// Firewall is what the doctor needs to know of one.
type Firewall struct {
	// Module is the name of its kind: nftables, firewalld, …
	Module string
	// Table is the name of its own nftables table, "" if it has none.
	Table string
	// Published says that it closes published ports too.
	Published bool
	// Stands reports whether its rules stand; nil if that can't be told.
	Stands func(context.Context) (bool, error)
}

// Report is what was found.
type Report struct {
	// OK says that there is no problem.
	OK       bool      `json:"ok"`
	Findings []Finding `json:"findings"`
	Proofs   []Proof   `json:"proofs"`
}

// Run makes all checks.
func Run(ctx context.Context, p *Plan) *Report {
	r := &Report{Findings: []Finding{}, Proofs: []Proof{}}
	r.Findings = append(r.Findings, checkConfig(p)...)
	r.Findings = append(r.Findings, checkHost(ctx, p)...)
	proofs, findings := prove(ctx, p)
	r.Proofs = append(r.Proofs, proofs...)
	r.Findings = append(r.Findings, findings...)
	rank := map[Level]int{Problem: 0, Warning: 1, Note: 2}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return rank[a.Level] - rank[b.Level] })
	r.OK = !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Level == Problem })
	return r
}

// gated reports whether a firewall keeps the service closed.
func (p *Plan) gated(s *knockcore.Service) bool {
	fw, ok := p.Firewalls[s.Firewall]
	return ok && fw.Module != "none"
}

// serviceAt finds a service by a port that clients connect to, nil if there is none.
func (p *Plan) serviceAt(proto knockcore.Protocol, port uint16) *knockcore.Service {
	for _, s := range p.Services {
		if s.Has(proto, port) {
			return s
		}
	}
	return nil
}
