// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestCompose parses compose.yaml and holds `docker run` of the README to it.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Build struct {
				Context, Dockerfile string
			}
			NetworkMode string `yaml:"network_mode"`
			Restart     string `yaml:"restart"`
			ReadOnly    bool   `yaml:"read_only"`
			User        string
			CapDrop     []string `yaml:"cap_drop"`
			CapAdd      []string `yaml:"cap_add"`
			SecurityOpt []string `yaml:"security_opt"`
			Volumes     []string
			Secrets     []string
		}
		Volumes map[string]struct{}
		Secrets map[string]struct{ File string }
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	s := file.Services["caddy"]
	if _, err := os.Stat(s.Build.Context + "/" + s.Build.Dockerfile); err != nil {
		t.Error(err)
	}
	want := []string{"--network " + s.NetworkMode, "--restart " + s.Restart}
	if s.ReadOnly {
		want = append(want, "--read-only")
	}
	want = append(want, "--user "+s.User)
	add := func(flag string, values []string) {
		for _, v := range values {
			want = append(want, flag+" "+v)
		}
	}
	add("--cap-drop", s.CapDrop)
	add("--cap-add", s.CapAdd)
	add("--security-opt", s.SecurityOpt)
	add("-v", s.Volumes)
	for _, name := range s.Secrets {
		want = append(want, "-v "+file.Secrets[name].File+":/run/secrets/"+name+":ro")
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	run := regexp.MustCompile(`(?m)^    docker run -d --name caddy (.*) caddy-knock$`).FindSubmatch(readme)
	if run == nil {
		t.Fatal("there is no docker run")
	}
	if got := string(run[1]); got != strings.Join(want, " ") {
		t.Errorf("the README says\n%s\ncompose.yaml is\n%s", got, strings.Join(want, " "))
	}
	caddyfile, _ := os.ReadFile("Caddyfile")
	for name := range file.Secrets {
		if !strings.Contains(string(caddyfile), "{file./run/secrets/"+name+"}") {
			t.Errorf("the Caddyfile does not read secret %s", name)
		}
	}
}
