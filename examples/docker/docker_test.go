// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// composeFile is as much of Compose's format as is used here.
type composeFile struct {
	Services map[string]struct {
		Build struct {
			Context, Dockerfile string
		}
		NetworkMode string `yaml:"network_mode"`
		Networks    []string
		Ports       []string
		Restart     string
		ReadOnly    bool `yaml:"read_only"`
		User        string
		CapDrop     []string `yaml:"cap_drop"`
		CapAdd      []string `yaml:"cap_add"`
		SecurityOpt []string `yaml:"security_opt"`
		Volumes     []string
		Secrets     []string
	}
	Networks map[string]struct {
		Driver     string
		EnableIPv6 bool `yaml:"enable_ipv6"`
	}
	Volumes map[string]struct{}
	Secrets map[string]struct{ File string }
}

// TestCompose parses each compose.yaml and holds `docker run` of its README to it.
func TestCompose(t *testing.T) {
	for folder, caps := range map[string]string{".": "NET_ADMIN NET_BIND_SERVICE", "firewalld": "", "http": ""} {
		t.Run(folder, func(t *testing.T) { testCompose(t, folder, caps) })
	}
}

func testCompose(t *testing.T, folder, caps string) {
	text, err := os.ReadFile(filepath.Join(folder, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file composeFile
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	s := file.Services["caddy"]
	if _, err := os.Stat(filepath.Join(folder, s.Build.Context, s.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
	if got := strings.Join(s.CapAdd, " "); got != caps || !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
		t.Errorf("capabilities %q instead of %q, drops %v, read only %v", got, caps, s.CapDrop, s.ReadOnly)
	}
	var run, create []string
	add := func(flag string, values ...string) {
		for _, v := range values {
			if v != "" {
				run = append(run, flag+" "+v)
			}
		}
	}
	add("--network", s.NetworkMode)
	add("--network", s.Networks...)
	add("-p", s.Ports...)
	add("--restart", s.Restart)
	run = append(run, "--read-only")
	add("--user", s.User)
	add("--cap-drop", s.CapDrop...)
	add("--cap-add", s.CapAdd...)
	add("--security-opt", s.SecurityOpt...)
	add("-v", s.Volumes...)
	for _, name := range s.Secrets {
		add("-v", file.Secrets[name].File+":/run/secrets/"+name+":ro")
	}
	for name, network := range file.Networks {
		if !network.EnableIPv6 {
			t.Errorf("network %s hides the addresses of IPv6", name)
		}
		create = append(create, "docker network create --driver "+network.Driver+" --ipv6 "+name)
	}
	readme, err := os.ReadFile(filepath.Join(folder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := append(create, "docker run -d --name caddy "+strings.Join(run, " ")+" caddy-knock")
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^    (docker (?:run|network) .*)$`).FindAllSubmatch(readme, -1) {
		got = append(got, string(m[1]))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the README says\n%s\ncompose.yaml is\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	caddyfile, err := os.ReadFile(filepath.Join(folder, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range file.Secrets {
		if !strings.Contains(string(caddyfile), "{file./run/secrets/"+name+"}") {
			t.Errorf("the Caddyfile does not read secret %s", name)
		}
	}
}
