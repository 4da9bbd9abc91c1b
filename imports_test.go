// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package caddyknock

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/caddy-knock/caddy-knock"

// heavy are the paths that pure packages must not pull in.
var heavy = []string{"github.com/caddyserver/caddy", "github.com/mholt/", "go.uber.org/zap", "github.com/prometheus/"}

// rules say what a package, with all below it, must not import; except are
// those below it that may. A package may always import its own like.
var rules = []struct {
	packages, except []string
	forbidden        []string
}{
	{ // the domain and its engines are pure
		packages:  []string{"knockcore/..."},
		except:    []string{"knockcore/knockapp"},
		forbidden: append([]string{module + "/knockcore/knockapp", module + "/l4knock", module + "/httpknock", module + "/firewallmod"}, heavy...),
	},
	{ // the core imports nothing of ours
		packages:  []string{"knockcore"},
		forbidden: []string{module + "/"},
	},
	{
		packages:  []string{"knockcore/wire"},
		forbidden: []string{module + "/knockcore/"},
		except:    []string{"knockcore/wire"},
	},
	{
		packages:  []string{"knockcore/cmd/..."},
		forbidden: heavy,
	},
	{ // the app knows guests by namespace only
		packages:  []string{"knockcore/knockapp/..."},
		forbidden: []string{module + "/l4knock", module + "/httpknock", module + "/firewallmod"},
	},
	{
		packages:  []string{"l4knock/..."},
		forbidden: []string{module + "/httpknock", module + "/firewallmod"},
	},
	{
		packages:  []string{"httpknock/..."},
		forbidden: []string{module + "/l4knock", module + "/firewallmod"},
	},
	{ // engines never import Caddy
		packages:  []string{"l4knock/internal/...", "firewallmod/internal/..."},
		forbidden: heavy,
	},
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Fields(string(out))
}

func TestImportDirection(t *testing.T) {
	violations := func(pkg string, forbidden, except []string) (found []string) {
		for _, dep := range goList(t, "-deps", pkg) {
			if dep == pkg || slices.ContainsFunc(except, func(e string) bool { return strings.HasPrefix(dep, module+"/"+e) }) {
				continue
			}
			if slices.ContainsFunc(forbidden, func(f string) bool { return strings.HasPrefix(dep, f) }) {
				found = append(found, dep)
			}
		}
		return found
	}
	checked := 0
	for _, rule := range rules {
		for _, pattern := range rule.packages {
			for _, pkg := range goList(t, "./"+pattern) {
				rel := strings.TrimPrefix(pkg, module+"/")
				if slices.ContainsFunc(rule.except, func(e string) bool { return strings.HasPrefix(rel, e) }) && pattern != rel {
					continue
				}
				checked++
				for _, dep := range violations(pkg, rule.forbidden, rule.except) {
					t.Errorf("%s imports %s", rel, strings.TrimPrefix(dep, module+"/"))
				}
			}
		}
	}
	if checked < len(rules) {
		t.Errorf("only %d packages were checked", checked)
	}
	// The check itself must be able to fail.
	if len(violations(module+"/l4knock", heavy, nil)) == 0 {
		t.Error("the check finds nothing where there is something to find")
	}
}
