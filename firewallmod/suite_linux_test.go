// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"context"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/firewallmod"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// backend is the engine as the module makes it from a Caddyfile.
var backend = coretest.FirewallBackend{
	New: func(netns int) (knockcore.Firewall, error) {
		module := new(firewallmod.NFTables)
		if err := module.UnmarshalCaddyfile(caddyfile.NewTestDispenser("nftables {\n table gate\n on_exit keep\n}")); err != nil {
			return nil, err
		}
		ctx, _ := caddy.NewContext(caddy.Context{Context: context.Background()})
		if err := module.Provision(ctx); err != nil {
			return nil, err
		}
		module.In(netns)
		return module.KnockFirewall().Open()
	},
	Programs: []string{"nft"},
	Breaks: map[string][]string{
		"flush ruleset": {"nft", "flush", "ruleset"},
		"delete table":  {"nft", "delete", "table", "inet", "gate"},
	},
}

func TestMain(m *testing.M) {
	coretest.FirewallProcess(backend)
	program.Main(m)
}

func TestSuite(t *testing.T) { coretest.FirewallSuite(t, backend) }
