// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// BenchmarkProvision reads a configuration with 10,000 clients.
func BenchmarkProvision(b *testing.B) {
	var clients []string
	for i := range 10_000 {
		secret := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "the secret of client %010d", i))
		clients = append(clients, fmt.Sprintf(`{"id":"c%d","secrets":["base64:%s"],"services":["ssh"]}`, i, secret))
	}
	path := filepath.Join(b.TempDir(), "clients.json")
	if err := os.WriteFile(path, []byte(`{"clients":[`+strings.Join(clients, ",")+`]}`), 0o600); err != nil {
		b.Fatal(err)
	}
	config := fmt.Appendf(nil, `{"admin":{"disabled":true},"apps":{"knock":{"clients_file":%s,"services":[{"name":"ssh","ports":["tcp/2222"]}],"store":{"store":"memory"}}}}`,
		caddyconfig.JSON(path, nil))
	b.ReportAllocs()
	for b.Loop() {
		var cfg caddy.Config
		if err := caddy.StrictUnmarshalJSON(config, &cfg); err != nil {
			b.Fatal(err)
		}
		if err := caddy.Validate(&cfg); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAdapt reads a Caddyfile with 10,000 clients.
func BenchmarkAdapt(b *testing.B) {
	var text strings.Builder
	text.WriteString("{\n\tknock {\n\t\tservice ssh tcp/2222\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, "\t\tclient c%d {\n\t\t\tsecret \"the secret of client %010d\"\n\t\t\tservices ssh\n\t\t}\n", i, i)
	}
	text.WriteString("\t}\n}\n")
	adapter := caddyconfig.GetAdapter("caddyfile")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := adapter.Adapt([]byte(text.String()), nil); err != nil {
			b.Fatal(err)
		}
	}
}
