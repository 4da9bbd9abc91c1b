// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Gate is what closes services: a base chain that INPUT (or PREROUTING) calls
// first, with a chain for each service that lets in who has a window. Its methods
// are called by one goroutine.
type Gate struct {
	families []*family
	base     map[bool][]string // the base chain as it was installed, by v6
	services []*knockcore.Service
	warnings []string
}

// open finds the programs, once, and refuses the variant that is not in use.
func (g *Gate) open(ctx context.Context, c Config) error {
	if g.families != nil {
		return nil
	}
	var families []*family
	var warnings []string
	for _, v6 := range []bool{false, true} {
		if v6 {
			if _, err := os.Stat("/proc/thread-self/net/if_inet6"); err != nil {
				warnings = append(warnings, "the kernel has no IPv6: it is not gated")
				break
			}
		}
		f, err := locate(ctx, v6, c.Variant, c.lockWait())
		if err != nil {
			return err
		}
		warning, err := c.inUse(ctx, f)
		if err != nil {
			return err
		}
		if warning != "" {
			warnings = append(warnings, warning)
		}
		families = append(families, f)
	}
	g.families, g.warnings = families, warnings
	return nil
}

// inUse fails if the rules of this host are in the other variant only.
func (c Config) inUse(ctx context.Context, f *family) (warning string, err error) {
	other := VariantLegacy
	if f.variant == VariantLegacy {
		other = VariantNFT
	} else if tables, _ := os.ReadFile("/proc/thread-self/net/" + strings.Replace(stem(f.v6), "tables", "_tables_names", 1)); len(tables) == 0 {
		return "", nil // asking iptables-legacy would load its modules
	}
	theirs, err := locate(ctx, f.v6, other, f.lockWait)
	if err != nil {
		return "", nil // not installed: nobody can have used it
	}
	counts := [2]int{}
	for i, save := range []string{f.save, theirs.save} {
		out, err := run(ctx, "", save)
		if err != nil {
			return "", err
		}
		counts[i] = c.foreignRules(out)
	}
	switch {
	case counts[1] == 0:
		return "", nil
	case counts[0] == 0:
		return "", fmt.Errorf("%s is %s here, but the %d rules of this host are in %s: a window in one does not open the other; set `variant %s`, or move the rules: %w",
			stem(f.v6), f.variant, counts[1], other, other, ErrVariant)
	default:
		return fmt.Sprintf("%s has rules in both nft (the gate stands in %s) and legacy: what one drops the other can't open", stem(f.v6), f.variant), nil
	}
}

// Read returns our table as it is, by v6. It refuses chains of our name that are
// not ours.
func (g *Gate) Read(ctx context.Context, c Config) (map[bool]Saved, error) {
	if err := g.open(ctx, c); err != nil {
		return nil, err
	}
	table, _ := c.place()
	saved := map[bool]Saved{}
	for _, f := range g.families {
		s, err := f.read(ctx, table)
		if err != nil {
			return nil, err
		}
		if rules := s[c.chain()]; len(rules) > 0 && !strings.Contains(strings.Join(rules, "\n"), mark) && g.base == nil {
			return nil, fmt.Errorf("chain %s of %s stands already: %w; name another with `chain`", c.chain(), stem(f.v6), ErrForeign)
		}
		saved[f.v6] = s
	}
	return saved, nil
}

// Install makes the gate stand, in one transaction for each family. windows
// returns the rules that let in who has a window of the service.
func (g *Gate) Install(ctx context.Context, c Config, services []*knockcore.Service, windows func(v6 bool, service string) []string) error {
	saved, err := g.Read(ctx, c)
	if err != nil {
		return err
	}
	table, _ := c.place()
	base := map[bool][]string{}
	for _, f := range g.families {
		script := c.installScript(f.v6, saved[f.v6], services, func(service string) []string { return windows(f.v6, service) })
		if err := f.write(ctx, script); err != nil {
			return err
		}
		now, err := f.read(ctx, table)
		if err != nil {
			return err
		}
		base[f.v6] = now[c.chain()]
	}
	g.base, g.services = base, services
	return nil
}

// Write changes rules of the services' chains: commands for each family.
func (g *Gate) Write(ctx context.Context, c Config, commands map[bool]string) error {
	table, _ := c.place()
	for _, f := range g.families {
		if commands[f.v6] == "" {
			continue
		}
		if err := f.write(ctx, "*"+table+"\n"+commands[f.v6]+"COMMIT\n"); err != nil {
			return err
		}
	}
	return nil
}

// Broken says what of the gate is not as it was installed, or "". windows returns
// the rules that the service's chain should have, in any order.
func (g *Gate) Broken(c Config, saved map[bool]Saved, windows func(v6 bool, service string) []string) string {
	_, caller := c.place()
	for _, f := range g.families {
		s, name := saved[f.v6], stem(f.v6)
		switch {
		case s.count(caller, "-j "+c.chain()) == 0:
			return fmt.Sprintf("%s does not call %s any more (%s)", caller, c.chain(), name)
		case !s.firstOnly(caller, "-j "+c.chain()):
			return fmt.Sprintf("%s is not the first rule of %s any more (%s)", c.chain(), caller, name)
		case !slices.Equal(s[c.chain()], g.base[f.v6]):
			return fmt.Sprintf("chain %s was changed (%s)", c.chain(), name)
		}
		for _, service := range g.services {
			chain := c.serviceChain(service.Name)
			have, want := slices.Sorted(slices.Values(s[chain])), slices.Sorted(slices.Values(windows(f.v6, service.Name)))
			if !slices.Equal(have, want) {
				return fmt.Sprintf("chain %s was changed (%s)", chain, name)
			}
		}
	}
	return ""
}

// Remove takes the gate away.
func (g *Gate) Remove(ctx context.Context, c Config) error {
	saved, err := g.Read(ctx, c)
	if err != nil {
		return err
	}
	for _, f := range g.families {
		if script := c.removeScript(saved[f.v6]); script != "" {
			if err := f.write(ctx, script); err != nil {
				return err
			}
		}
	}
	g.base = nil
	return nil
}

// Knows tries whether iptables and the kernel know a match, in a chain that
// nobody calls.
func (g *Gate) Knows(ctx context.Context, c Config, match func(v6 bool) string) (bool, error) {
	if err := g.open(ctx, c); err != nil {
		return false, err
	}
	table, _ := c.place()
	try := func(f *family, rule string) error {
		chain := c.probeChain()
		return f.write(ctx, fmt.Sprintf("*%[1]s\n:%[2]s - [0:0]\n-A %[2]s %[3]s\nCOMMIT\n*%[1]s\n:%[2]s - [0:0]\n-X %[2]s\nCOMMIT\n", table, chain, rule))
	}
	for _, f := range g.families {
		if err := try(f, match(f.v6)+" -j RETURN"); err != nil {
			return false, try(f, "-j RETURN") // or it is something else that does not work
		}
	}
	return true, nil
}

// Warnings are what the operator should know.
func (g *Gate) Warnings(c Config) []string {
	list := slices.Clone(g.warnings)
	if !c.prerouting() {
		list = append(list, "hook input cannot gate ports that the host forwards by destination NAT, such as those published by Docker: they stay open to everybody; use hook prerouting")
	}
	return list
}
