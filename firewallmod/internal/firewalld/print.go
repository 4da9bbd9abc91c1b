// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"fmt"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Print writes the commands that add the rules which close to the permanent
// configuration, as the engine does when it starts: a boot or a reload of firewalld
// has them from then on.
func Print(c Config, services []*knockcore.Service) (string, error) {
	if err := c.Validate(); err != nil {
		return "", err
	}
	if err := c.Accepts(services); err != nil {
		return "", err
	}
	command := "firewall-cmd --permanent"
	if c.Zone != "" {
		command += " --zone='" + strings.ReplaceAll(c.Zone, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString(`#!/bin/sh
# Keeps services closed until somebody knocks. Printed by caddy-knock, for root. It
# counts from the next boot or reload of firewalld on; where firewalld does not run,
# have firewall-offline-cmd in place of "firewall-cmd --permanent".
set -e

`)
	for _, p := range c.Sources {
		fmt.Fprintf(&b, "%s --add-source=%s\n", command, p.Masked())
	}
	for _, s := range services {
		for _, r := range c.gateRules(s) {
			fmt.Fprintf(&b, "%s --add-rich-rule='%s'\n", command, r)
		}
	}
	return b.String(), nil
}
