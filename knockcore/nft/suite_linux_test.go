// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"os"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest"
)

var backend = coretest.FirewallBackend{
	New:      func(netns int) (knockcore.Firewall, error) { return New(Config{NetNS: netns}) },
	Programs: []string{"nft"},
	Breaks: map[string][]string{
		"flush ruleset":           {"nft", "flush", "ruleset"},
		"delete table":            {"nft", "delete", "table", "inet", DefaultTable},
		"flush table":             {"nft", "flush", "table", "inet", DefaultTable},
		"flush base chain":        {"nft", "flush", "chain", "inet", DefaultTable, baseChain},
		"flush a chain":           {"nft", "flush", "chain", "inet", DefaultTable, "win-ssh"},
		"an accept of somebody's": {"nft", "insert", "rule", "inet", DefaultTable, "win-ssh", "accept"},
		"a dormant table":         {"nft", "add", "table", "inet", DefaultTable, "{ flags dormant; }"},
	},
}

func TestMain(m *testing.M) {
	coretest.FirewallProcess(backend)
	os.Exit(m.Run())
}

func TestSuite(t *testing.T) { coretest.FirewallSuite(t, backend) }
