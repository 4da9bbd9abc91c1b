// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"os"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest"
)

func backend(variant Variant) coretest.FirewallBackend {
	ip4, ip6 := "iptables-"+string(variant), "ip6tables-"+string(variant)
	return coretest.FirewallBackend{
		New: func(netns int) (knockcore.Firewall, error) {
			return New(Config{Variant: variant, Options: engine.Options{NetNS: netns, CheckInterval: 200 * time.Millisecond}})
		},
		Programs: []string{ip4, ip6, ip4 + "-restore"},
		Breaks: map[string][]string{
			"flush all":         {ip4, "-w", "-F"},
			"flush INPUT v6":    {ip6, "-w", "-F", "INPUT"},
			"flush a chain":     {ip4, "-w", "-F", "CADDY_KNOCK-ssh"},
			"an accept before":  {ip4, "-w", "-I", "INPUT", "-j", "ACCEPT"},
			"somebody's accept": {ip6, "-w", "-I", "CADDY_KNOCK-ssh", "-j", "ACCEPT"},
		},
		Resolution: time.Second,
	}
}

func TestMain(m *testing.M) {
	variant := Variant(os.Getenv(variantEnv))
	if variant == VariantAuto {
		variant = VariantNFT
	}
	coretest.FirewallProcess(backend(variant))
	os.Exit(m.Run())
}

// variantEnv tells the suite's processes which variant to use.
const variantEnv = "KNOCK_IPTABLES_VARIANT"

func TestSuite(t *testing.T) {
	for _, variant := range []Variant{VariantNFT, VariantLegacy} {
		t.Run(string(variant), func(t *testing.T) {
			t.Setenv(variantEnv, string(variant))
			coretest.FirewallSuite(t, backend(variant))
		})
	}
}
