// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// BanRules say which ports banned prefixes are kept out of.
type BanRules struct {
	// Ports are those ports, of TCP or UDP.
	Ports []knockcore.PortRange
	// Allow lists who is never kept out.
	Allow []netip.Prefix
	// Spare names services besides those that are gated: a window for them opens
	// nothing, but who has one is not kept out.
	Spare []string
}

// bannedService stands for a service whose windows are bans. No service has this
// name, because names have no blanks.
const bannedService = "banned addresses"

// Names in our table that concern bans.
const (
	bansChain     = "bans"
	bansPorts     = "bans-ports"
	bansSpare     = "bans-spare"
	bannedToken   = "banned.addresses" // no service has a token with a dot
	bannedCounter = "banned"
)

func (b *BanRules) validate() error {
	if b == nil {
		return nil
	}
	if len(b.Ports) == 0 {
		return errors.New("bans need the ports that banned addresses are kept out of")
	}
	for _, r := range b.Ports {
		if r.Protocol != knockcore.TCP && r.Protocol != knockcore.UDP || r.Low > r.High {
			return errors.New("bans need ports of TCP or UDP")
		}
	}
	return nil
}

// withBans are the services and what has windows besides them: those have no ports.
func withBans(services []*knockcore.Service, b *BanRules) []*knockcore.Service {
	if b == nil {
		return services
	}
	all := slices.Clone(services)
	for _, name := range b.Spare {
		all = append(all, &knockcore.Service{Name: name, Door: true})
	}
	return append(all, &knockcore.Service{Name: bannedService, Door: true})
}

// banChains keep banned prefixes out, before the gate and without a word on anybody
// else. Of TCP only packets that begin a connection are stopped, so that streams
// which were let in go on; of UDP all but answers to what the host asked. Who has
// a window of any service passes.
func banChains(cfg Config, services []*knockcore.Service, groups map[string][]group) []chain {
	if cfg.Bans == nil {
		return nil
	}
	banned := classes([]*knockcore.Service{{Name: bannedService, Ports: cfg.Bans.Ports}})[0]
	concern := chain{name: svcChain(banned)}
	if banned.has(knockcore.TCP) {
		concern.rules = append(concern.rules, rule{when: []match{matchNotSyn{}}})
	}
	if banned.has(knockcore.UDP) {
		concern.rules = append(concern.rules, rule{when: []match{matchProtocol{knockcore.UDP}, matchReply{}}})
	}
	concern.rules = append(concern.rules, rule{when: []match{matchToHost{}}, then: to(winChain(banned))})

	look, spare := chain{name: winChain(banned)}, chain{name: bansSpare}
	for _, g := range groups[bannedService] {
		look.rules = append(look.rules, rule{when: []match{matchWindow{g}}, then: to(bansSpare)})
	}
	for _, p := range slices.Concat(cfg.Allow, cfg.Bans.Allow) {
		spare.rules = append(spare.rules, rule{when: []match{matchAddr{true, p}}})
	}
	for _, s := range services {
		if s.Name == bannedService {
			continue
		}
		for _, g := range groups[s.Name] {
			spare.rules = append(spare.rules, rule{when: []match{matchWindow{g}}})
		}
	}
	spare.rules = append(spare.rules, reassemble, rule{counter: bannedCounter, then: verdict{kind: toDrop}})
	return []chain{
		baseOf(cfg, bansChain, priority-1, bansPorts),
		{name: bansPorts, rules: dispatch([]*class{banned})},
		concern, look, spare,
	}
}
