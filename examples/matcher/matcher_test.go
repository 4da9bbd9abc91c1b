// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package matcher

import (
	_ "embed"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/mholt/caddy-l4"

	_ "github.com/caddy-knock/caddy-knock"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

//go:embed Caddyfile
var caddyfile string

func TestTwoClientsTwoUpstreams(t *testing.T) {
	dir := t.TempDir()
	secrets := map[string]string{"alice": "the secret of alice", "bob": "the secret of bob, too"}
	for id, secret := range secrets {
		if err := os.WriteFile(filepath.Join(dir, id+".key"), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listen := program.FreeAddress(t)
	_, port, _ := net.SplitHostPort(listen)
	apptest.Load(t, strings.NewReplacer(
		"localhost:2019", "off",
		"/etc/caddy/knock/", dir+"/",
		"tcp/2222", "tcp/"+port,
		":2222 {", listen+" {",
		"127.0.0.1:22\n", apptest.Echo(t, "ssh\n")+"\n",
		"127.0.0.1:5432", apptest.Echo(t, "database\n"),
		"127.0.0.1:8080", apptest.Site(t, "cover"),
	).Replace(caddyfile))

	talk := func(conn net.Conn, say string) string {
		t.Helper()
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, say); err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
	for id, want := range map[string]string{"alice": "ssh\nhello", "bob": "database\nhello"} {
		d := knockclient.Dialer{Config: knockclient.Config{ClientID: id, Secret: knockcore.NewSecret([]byte(secrets[id])), ServerProof: true}}
		conn, err := d.Dial("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		if got := talk(conn, "hello"); got != want {
			t.Errorf("%s got %q", id, got)
		}
	}
	conn, err := net.Dial("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	if got := talk(conn, "GET / HTTP/1.0\r\n\r\n"); !strings.HasSuffix(got, "cover") {
		t.Errorf("a stranger got %q", got)
	}
	d := knockclient.Dialer{Config: knockclient.Config{ClientID: "alice", Secret: knockcore.NewSecret([]byte("not alice's secret"))}}
	if conn, err = d.Dial("tcp", listen); err != nil {
		t.Fatal(err)
	}
	if got := talk(conn, "\r\n\r\n"); strings.Contains(got, "ssh") || strings.Contains(got, "database") {
		t.Errorf("a wrong secret got %q", got)
	}
}
