// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpbehindframe

import (
	_ "embed"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/examples/internal/stage"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

//go:embed Caddyfile
var caddyfile string

func TestMain(m *testing.M) { program.Main(m) }

func TestCurlBehindTheFrame(t *testing.T) {
	curl := program.Need(t, "curl")
	dir, alice := t.TempDir(), stage.NewAlice(t)
	guarded, cover := program.FreeAddress(t), program.FreeAddress(t)
	port, coverPort := stage.PortOf(t, guarded), stage.PortOf(t, cover)
	p := program.StartCaddy(t, dir, strings.NewReplacer(
		"localhost:2019\n", program.FreeAddress(t)+"\n\tlocal_certs\n\tskip_install_trust\n\tauto_https disable_redirects\n",
		"/etc/caddy/knock/alice.key", alice.Key,
		"tcp/443", "tcp/"+port,
		"servers :443 {", "servers :"+port+" {",
		"app.example.org {", "app.example.org:"+port+" {",
		"127.0.0.1:3000", apptest.Site(t, "the application"),
		"127.0.0.1:8443", cover,
		"https://app.example.org:8443", "https://app.example.org:"+coverPort,
	).Replace(caddyfile), guarded, cover)
	root := filepath.Join(dir, "data", "caddy", "pki", "authorities", "local", "root.crt")

	// get fetches the page by its real name, from where it is said to be.
	get := func(at string, options ...string) (string, error) {
		out, err := exec.Command(curl, append([]string{
			"--silent", "--show-error", "--max-time", "20", "--cacert", root, "--connect-to", "::" + at,
			"--write-out", " over HTTP/%{http_version}%header{alt-svc}", "https://app.example.org:" + port,
		}, options...)...).CombinedOutput()
		return string(out), err
	}
	forwarded := alice.Forward(t, guarded)
	p.Await(t, "the certificate", func() bool {
		_, err := get(forwarded)
		return err == nil
	})
	for option, version := range map[string]string{"--http1.1": "1.1", "--http2": "2"} {
		for who, at := range map[string]string{"the application": forwarded, "It works!": guarded} {
			got, err := get(at, option)
			if want := who + " over HTTP/" + version; got != want || err != nil {
				t.Errorf("got %q, %v instead of %q", got, err, want)
			}
		}
	}
}
