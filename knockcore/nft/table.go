// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Names in our table that do not come from services. Names of services have no
// hyphen (see token), so they cannot collide.
const (
	// markerSet tells our table from one of the same name that is not ours.
	markerSet     = "owned-by-caddy-knock"
	markerComment = "do not edit: this table belongs to caddy-knock"
	baseChain     = "knock"
	portsChain    = "ports"
	keptSet4      = "kept-connections-4"
	keptSet6      = "kept-connections-6"
)

// build makes the table for the services (withBans). Groups are those that need a set
// besides the standard ones.
func build(cfg Config, services []*knockcore.Service, groups []group) (*ruleset, error) {
	rs := &ruleset{table: cfg.table()}
	if len(cfg.Log) > 0 {
		if len(services) > 0 {
			return nil, errors.New("a table that logs gates nothing: give the services another one")
		}
		return rs.logOnly(cfg), nil
	}
	rs.sets = append(rs.sets, setSpec{markerSet, kindMark, markerComment})
	if slices.ContainsFunc(services, func(s *knockcore.Service) bool { return s.CutOnExpire }) {
		rs.sets = append(rs.sets, setSpec{keptSet4, kindConn4, ""}, setSpec{keptSet6, kindConn6, ""})
	}
	all := map[string][]group{}
	tokens := map[string]string{}
	var gated []*knockcore.Service
	for _, s := range services {
		if !s.Door {
			if err := s.Validate(); err != nil {
				return nil, err
			}
			gated = append(gated, s)
			rs.counters = append(rs.counters, openCounter(s.Name), shutCounter(s.Name))
		}
		if other, taken := tokens[token(s.Name)]; taken {
			return nil, fmt.Errorf("services %q and %q cannot be told apart by name; rename one", other, s.Name)
		}
		tokens[token(s.Name)] = s.Name
		list := standard(s.Name)
		for _, g := range groups {
			if g.service == s.Name && !g.isStandard() {
				list = append(list, g)
			}
		}
		slices.SortFunc(list, compareGroups)
		all[s.Name] = slices.Compact(list)
		for _, g := range all[s.Name] {
			kind := kindAddr4
			if g.v6 {
				kind = kindAddr6
			}
			rs.sets = append(rs.sets, setSpec{g.setName(), kind, ""})
		}
	}
	if cfg.Bans != nil {
		rs.counters = append(rs.counters, bannedCounter)
		rs.chains = banChains(cfg, services, all)
	}

	parts := classes(gated)
	rs.chains = append(rs.chains, baseOf(cfg, baseChain, priority, portsChain), chain{name: portsChain, rules: dispatch(parts)})
	for _, c := range parts {
		rs.chains = append(rs.chains,
			chain{name: svcChain(c), rules: concernRules(c)},
			chain{name: winChain(c), rules: windowRules(cfg, c, all)})
	}
	return rs, nil
}

// baseOf makes a chain at the hook that sends what is gated at all to another one.
func baseOf(cfg Config, name string, priority int, next string) chain {
	base := chain{name: name, hook: cfg.hook(), priority: priority}
	base.rules = append(base.rules, rule{when: []match{matchInterface{"lo"}}})
	for _, device := range cfg.Interfaces {
		base.rules = append(base.rules, rule{when: []match{matchInterface{device}}, then: to(next)})
	}
	if len(cfg.Interfaces) == 0 {
		base.rules = append(base.rules, rule{then: to(next)})
	}
	return base
}

func svcChain(c *class) string          { return "svc-" + c.name }
func winChain(c *class) string          { return "win-" + c.name }
func openCounter(service string) string { return token(service) + "-open" }
func shutCounter(service string) string { return token(service) + "-shut" }
func to(chain string) verdict           { return verdict{kind: toChain, chain: chain} }

// dispatch sends the ports of each class to its chain: single ports by one
// look-up, ranges by a rule each.
func dispatch(parts []*class) []rule {
	var single []portTarget
	var ranges []rule
	for _, c := range parts {
		for _, r := range c.ports {
			if r.Low == r.High {
				single = append(single, portTarget{r.Protocol, r.Low, svcChain(c)})
				continue
			}
			ranges = append(ranges, rule{when: []match{matchPorts{r}}, then: to(svcChain(c))})
		}
	}
	if len(single) == 0 {
		return ranges
	}
	return append([]rule{{then: verdict{kind: toPorts, ports: single}}}, ranges...)
}

// concernRules decide whether a packet to a port of the class is to be gated.
func concernRules(c *class) []rule {
	var rules []rule
	switch {
	case !c.cuts():
		if c.has(knockcore.TCP) {
			rules = append(rules, rule{when: []match{matchNotSyn{}}})
		}
		if c.has(knockcore.UDP) {
			rules = append(rules, rule{when: []match{matchProtocol{knockcore.UDP}, matchState{ctEstablished}}})
		}
	case c.has(knockcore.TCP):
		rules = append(rules,
			rule{when: []match{matchNotSyn{}, matchConn{keptSet4, false}}},
			rule{when: []match{matchNotSyn{}, matchConn{keptSet6, true}}})
	}
	rules = append(rules, rule{when: []match{matchToHost{}}, then: to(winChain(c))})
	for _, s := range c.services {
		for _, p := range s.Destinations {
			rules = append(rules, rule{when: []match{matchAddr{false, p}}, then: to(winChain(c))})
		}
	}
	return rules
}

// reassemble decides nothing, but asking conntrack anything makes the kernel put
// fragments together before they reach us, so that no header hides in a later one.
var reassemble = rule{when: []match{matchState{ctInvalid}}, then: verdict{kind: toContinue}, comment: "makes the kernel reassemble fragments"}

// windowRules let in who has a window and shut out the rest.
func windowRules(cfg Config, c *class, groups map[string][]group) []rule {
	var rules []rule
	for _, p := range cfg.Allow {
		rules = append(rules, rule{when: []match{matchAddr{true, p}}})
	}
	for _, s := range c.services {
		for _, g := range groups[s.Name] {
			rules = append(rules, rule{when: []match{matchWindow{g}}, counter: openCounter(s.Name)})
		}
	}
	rules = append(rules, reassemble)
	shut := shutCounter(c.services[0].Name)
	if !rejects(cfg, c) {
		return append(rules, rule{counter: shut, then: verdict{kind: toDrop}})
	}
	if c.has(knockcore.TCP) {
		rules = append(rules, rule{when: []match{matchProtocol{knockcore.TCP}}, counter: shut, then: verdict{kind: toReset}})
	}
	if c.has(knockcore.UDP) {
		rules = append(rules, rule{when: []match{matchProtocol{knockcore.UDP}}, counter: shut, then: verdict{kind: toRefuse}})
	}
	return append(rules, rule{then: verdict{kind: toDrop}})
}

// rejects reports whether strangers are refused: where classes mix, only if all
// of its services say so.
func rejects(cfg Config, c *class) bool {
	return cfg.RejectAll || !slices.ContainsFunc(c.services, func(s *knockcore.Service) bool {
		return !slices.Contains(cfg.Reject, s.Name)
	})
}
