// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

func TestMain(m *testing.M) { program.Main(m) }

// modules are those that a build has to contain.
var modules = []string{
	"knock", "knock.sources.nflog", "knock.sources.packet", "knock.sources.udp", "knock.stores.file", "knock.stores.memory", "knock.stores.redis", "knock.stores.storage", "admin.api.knock", "events.handlers.knock_exec", "caddy.listeners.knock", "caddy.listeners.knocked", "caddy.packetconns.knocked", "http.handlers.knock", "http.matchers.knocked", "layer4.handlers.knock", "layer4.handlers.knock_relay", "layer4.matchers.knock", "layer4.matchers.knocked",
}

func expectModules(t *testing.T, caddy string) {
	t.Helper()
	list := strings.Fields(program.Run(t, caddy, "list-modules"))
	for _, m := range modules {
		if !slices.Contains(list, m) {
			t.Errorf("%s is not in the build", m)
		}
	}
}

func TestReadyBuild(t *testing.T) { expectModules(t, program.Caddy(t)) }

// TestXcaddyBuild builds as users do, with the real tool.
func TestXcaddyBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a whole build of Caddy")
	}
	if _, err := os.Stat("../vendor/modules.txt"); err == nil {
		t.Skip("xcaddy asks the network for modules, not the folder vendor")
	}
	gomod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := func(module string) string {
		m := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(module) + ` (v\S+)`).FindSubmatch(gomod)
		if m == nil {
			t.Fatalf("go.mod does not require %s", module)
		}
		return string(m[1])
	}
	out := filepath.Join(t.TempDir(), "caddy")
	cmd := exec.Command("go", "tool", "-modfile=xcaddy/xcaddy.mod", "xcaddy", "build", version("github.com/caddyserver/caddy/v2"),
		"--with", "github.com/mholt/caddy-l4@"+version("github.com/mholt/caddy-l4"),
		"--with", "github.com/caddy-knock/caddy-knock@v0.0.0=.",
		"--output", out)
	cmd.Dir = ".."
	// Without -trimpath, which xcaddy gives otherwise, what is compiled already is
	// used again.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "XCADDY_GO_BUILD_FLAGS=-ldflags=-s")
	if log, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("xcaddy: %v\n%s", err, log)
	}
	expectModules(t, out)
}
