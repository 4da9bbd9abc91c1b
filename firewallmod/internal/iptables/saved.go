// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Saved are the chains of a table and their rules, as iptables-save prints them,
// without quotes: our own rules have none of what needs them.
type Saved map[string][]string

// parseSaved reads the output of iptables-save for one table.
func parseSaved(text string) (Saved, error) {
	s := Saved{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, ":"):
			name, _, _ := strings.Cut(line[1:], " ")
			s[name] = nil
		case strings.HasPrefix(line, "-A "):
			chain, rule, _ := strings.Cut(line[3:], " ")
			s[chain] = append(s[chain], strings.ReplaceAll(strings.TrimRight(rule, " "), `"`, ""))
		case strings.Contains(line, "is incompatible, use 'nft' tool"):
			return nil, fmt.Errorf("the table holds rules that iptables can't read: %s", strings.TrimLeft(line, "# "))
		}
	}
	return s, nil
}

func (s Saved) names() []string { return slices.Sorted(maps.Keys(s)) }

func (s Saved) count(chain, rule string) (n int) {
	for _, r := range s[chain] {
		if r == rule {
			n++
		}
	}
	return n
}

// firstOnly reports whether the rule is the first of the chain and stands there
// once.
func (s Saved) firstOnly(chain, rule string) bool {
	return len(s[chain]) > 0 && s[chain][0] == rule && s.count(chain, rule) == 1
}

// foreignRules counts the rules, of all tables that were saved, which are not
// ours, and the policies that are not ACCEPT.
func (c Config) foreignRules(text string) (n int) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) < 2:
		case words[0] == "-A" && !c.owns(words[1]) && !c.owns(words[len(words)-1]):
			n++
		case strings.HasPrefix(words[0], ":") && words[1] != "ACCEPT" && words[1] != "-":
			n++
		}
	}
	return n
}
