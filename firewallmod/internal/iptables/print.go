// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Print writes the closed gate, without any window, as a shell script: each family
// has a program of its own, and none of them can say "unless it stands already".
func Print(c Config, services []*knockcore.Service) (string, error) {
	return c.Script(services, "", func(bool, string) []string { return nil })
}

// Script is Print with the rules that let in who has a window, and with commands that
// make what these rules need.
func (c Config) Script(services []*knockcore.Service, before string, rules func(v6 bool, service string) []string) (string, error) {
	if err := c.Validate(); err != nil {
		return "", err
	}
	if err := c.Accepts(services); err != nil {
		return "", err
	}
	table, caller := c.place()
	var b strings.Builder
	b.WriteString(`#!/bin/sh
# Keeps services closed until somebody knocks. Printed by caddy-knock, for root.
# While Caddy runs it takes windows away, which Caddy mends.
set -e
`)
	b.WriteString(before)
	for _, v6 := range []bool{false, true} {
		program := stem(v6)
		if c.Variant != VariantAuto {
			program += "-" + string(c.Variant)
		}
		if v6 {
			b.WriteString("\n[ -e /proc/net/if_inet6 ] || exit 0\n")
		}
		wait := int(c.lockWait().Seconds())
		fmt.Fprintf(&b, "\n%s-restore --noflush --wait %d <<'END'\n*%s\n:%s - [0:0]\n", program, wait, table, c.chain())
		for _, s := range services {
			fmt.Fprintf(&b, ":%s - [0:0]\n", c.serviceChain(s.Name))
		}
		for _, s := range services {
			for _, rule := range rules(v6, s.Name) {
				fmt.Fprintf(&b, "-A %s %s\n", c.serviceChain(s.Name), rule)
			}
		}
		for _, rule := range c.baseRules(v6, services) {
			fmt.Fprintf(&b, "-A %s %s\n", c.chain(), rule)
		}
		fmt.Fprintf(&b, "COMMIT\nEND\n")
		call := fmt.Sprintf("%s -w %d -t %s", program, wait, table)
		fmt.Fprintf(&b, "%s -C %s -j %s 2>/dev/null ||\n\t%[1]s -I %[2]s 1 -j %[3]s\n", call, caller, c.chain())
	}
	return b.String(), nil
}
