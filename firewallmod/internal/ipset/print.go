// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package ipset

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Print writes the closed gate with its sets, empty, as a shell script.
func Print(c Config, services []*knockcore.Service) (string, error) {
	if err := c.Validate(); err != nil {
		return "", err
	}
	if len(c.Sets) > 0 {
		return "", errors.New("windows go to sets of yours: there is no rule set to print")
	}
	var sets strings.Builder
	sets.WriteString("\n")
	for _, s := range services {
		for _, v6 := range []bool{false, true} {
			family := "inet"
			if v6 {
				family = "inet6"
			}
			fmt.Fprintf(&sets, "ipset -exist create %s hash:net family %s maxelem %d timeout 0\n", c.setName(v6, s.Name), family, maxEntries)
		}
	}
	return c.Script(services, sets.String(), func(v6 bool, service string) []string {
		return []string{c.accept(v6, service)}
	})
}

// match matches who is in the set of the service.
func (c Config) match(v6 bool, service string) string {
	return "-m set --match-set " + c.setName(v6, service) + " src"
}

// accept lets them in.
func (c Config) accept(v6 bool, service string) string { return c.match(v6, service) + " -j ACCEPT" }
