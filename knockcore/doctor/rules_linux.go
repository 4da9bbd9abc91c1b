// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// nftChain and nftRule are objects of `nft -j list ruleset`.
type nftChain struct {
	Family, Table, Name, Type, Hook, Policy string
}

type nftRule struct {
	Family, Table, Chain string
	Expr                 []map[string]json.RawMessage
}

// ruleset is what stands in the kernel.
type ruleset struct {
	chains []nftChain
	rules  []nftRule
}

func readRuleset(ctx context.Context) (*ruleset, error) {
	out, err := exec.CommandContext(ctx, "nft", "-j", "list", "ruleset").Output()
	if err != nil {
		return nil, err
	}
	return parseRuleset(out)
}

func parseRuleset(text []byte) (*ruleset, error) {
	var listed struct {
		Nftables []struct {
			Chain *nftChain
			Rule  *nftRule
		}
	}
	if err := json.Unmarshal(text, &listed); err != nil {
		return nil, err
	}
	r := new(ruleset)
	for _, o := range listed.Nftables {
		if o.Chain != nil {
			r.chains = append(r.chains, *o.Chain)
		}
		if o.Rule != nil {
			r.rules = append(r.rules, *o.Rule)
		}
	}
	return r, nil
}

// checkRules looks at the tables of others.
func checkRules(ctx context.Context, p *Plan) (found []Finding) {
	rules, err := readRuleset(ctx)
	if err != nil {
		return []Finding{{ID: "foreign-table", Level: Note, Text: fmt.Sprintf("tables of others were not looked at: %v", err), Advice: "install nft and run the doctor as root"}}
	}
	found = append(found, rules.dropping(p)...)
	found = append(found, rules.published(p)...)
	if out, err := exec.CommandContext(ctx, "iptables-legacy-save").Output(); err == nil && strings.Contains(string(out), "\n-A ") {
		found = append(found, Finding{
			ID: "foreign-table", Level: Warning, Subject: "iptables-legacy",
			Text:   "there are rules of iptables-legacy, which nft does not list: they may drop what a window lets in, or publish ports",
			Advice: "look at iptables-legacy-save, and move them to nft",
		})
	}
	return found
}

// ours reports whether a table belongs to one of the plan's firewalls.
func (p *Plan) ours(family, table string) bool {
	for _, fw := range p.Firewalls {
		if family == "inet" && fw.Table == table {
			return true
		}
	}
	return false
}

// dropping finds tables of others that drop by policy and do not let the service in:
// an accept of ours is not final there.
func (r *ruleset) dropping(p *Plan) (found []Finding) {
	for _, c := range r.chains {
		if c.Type != "filter" || c.Policy != "drop" || c.Hook != "input" && c.Hook != "prerouting" || p.ours(c.Family, c.Table) {
			continue
		}
		for _, s := range p.Services {
			for _, port := range s.Ports {
				if r.accepts(c.Family, c.Table, port) {
					continue
				}
				found = append(found, Finding{
					ID: "foreign-drop", Level: Problem, Subject: s.Name,
					Text: fmt.Sprintf("chain %s %s %s drops what it does not accept, and no rule of its table names %v: a window of ours can't open that", c.Family, c.Table, c.Name, port),
					Advice: fmt.Sprintf("let it through there, where it stays gated by us: nft add rule %s %s %s %v dport %s accept", c.Family, c.Table, c.Name, port.Protocol,
						strings.TrimPrefix(port.String(), port.Protocol.String()+"/")),
				})
			}
		}
	}
	return found
}

// accepts reports whether a rule of the table seems to accept the port.
func (r *ruleset) accepts(family, table string, port knockcore.PortRange) bool {
	return slices.ContainsFunc(r.rules, func(rule nftRule) bool {
		if rule.Family != family || rule.Table != table {
			return false
		}
		names, opens := false, false
		for _, e := range rule.Expr {
			if _, ok := e["accept"]; ok || e["jump"] != nil || e["goto"] != nil {
				opens = true
			}
			names = names || matchesPort(e["match"], port)
		}
		return names && opens
	})
}

// published finds ports of services that are translated where their firewall does
// not look.
func (r *ruleset) published(p *Plan) (found []Finding) {
	for _, rule := range r.rules {
		translates := slices.ContainsFunc(rule.Expr, func(e map[string]json.RawMessage) bool {
			return e["dnat"] != nil || e["xt"] != nil && strings.Contains(string(e["xt"]), "DNAT")
		})
		if !translates {
			continue
		}
		for _, s := range p.Services {
			if !p.gated(s) || p.Firewalls[s.Firewall].Published {
				continue
			}
			for _, port := range s.Ports {
				if !slices.ContainsFunc(rule.Expr, func(e map[string]json.RawMessage) bool { return matchesPort(e["match"], port) }) {
					continue
				}
				found = append(found, Finding{
					ID: "published", Level: Problem, Subject: s.Name,
					Text: fmt.Sprintf("%v is published by %s %s %s and walks past firewall %s, which looks at this host's own ports only",
						port, rule.Family, rule.Table, rule.Chain, s.Firewall),
					Advice: "use firewall nftables with `hook prerouting` (its default), or publish the port on 127.0.0.1",
				})
			}
		}
	}
	return found
}

// matchesPort reports whether a match of a rule is about the destination port.
func matchesPort(match json.RawMessage, port knockcore.PortRange) bool {
	var m struct {
		Left struct {
			Payload struct{ Protocol, Field string }
		}
		Right json.RawMessage
	}
	if match == nil || json.Unmarshal(match, &m) != nil || m.Left.Payload.Field != "dport" {
		return false
	}
	if proto := m.Left.Payload.Protocol; proto != port.Protocol.String() && proto != "th" {
		return false
	}
	return holdsPort(m.Right, port.Low)
}

// holdsPort reads the right side of a match: a port, {"range": [a, b]} or {"set": […]}.
func holdsPort(right json.RawMessage, port uint16) bool {
	var number uint16
	if json.Unmarshal(right, &number) == nil {
		return number == port
	}
	var o struct {
		Range []uint16
		Set   []json.RawMessage
	}
	if json.Unmarshal(right, &o) != nil {
		return false
	}
	if len(o.Range) == 2 {
		return o.Range[0] <= port && port <= o.Range[1]
	}
	return slices.ContainsFunc(o.Set, func(e json.RawMessage) bool { return holdsPort(e, port) })
}
