// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// hold opens a connection from alice and says hello over it.
func (g *gate) hold(to string) net.Conn {
	g.Helper()
	conn, err := g.alice.Dial("tcp", to, 10*time.Second)
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { _ = conn.Close() })
	if !answers(conn) {
		g.Fatalf("%s does not answer", to)
	}
	return conn
}

func answers(conn net.Conn) bool {
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return false
	}
	n, err := conn.Read(make([]byte, 5))
	return n > 0 && err == nil
}

// reset waits until the host resets the connection.
func (g *gate) reset(conn net.Conn, when string) {
	g.Helper()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		g.Errorf("%s: %v, want a reset", when, err)
	}
}

// TestCutResets: with on_expire cut, connections are reset when their grant is
// revoked or runs out; with drain they live on.
func TestCutResets(t *testing.T) {
	netlab.Need(t, "nft", "conntrack")
	g := newHost(t, "")
	g.text = strings.Replace(g.text, "firewall nftables\n", "firewall nftables\n\t\t\ton_expire cut\n", 1)
	g.write(g.text)
	g.start()
	id4 := g.grant("192.0.2.2", "10m")
	g.grant("2001:db8:1::/64", "10m")
	conn4, conn6 := g.hold("192.0.2.1:2222"), g.hold("[2001:db8:1::1]:2222")
	if status, body := g.call(http.MethodDelete, "/knock/grants?id="+id4, ""); status != http.StatusOK {
		t.Fatalf("revoking: %d %s", status, body)
	}
	g.reset(conn4, "revoked")
	if !answers(conn6) {
		t.Error("a connection of another grant died too")
	}
	g.grant("192.0.2.2", "5s") // to get in
	g.reset(g.hold("192.0.2.1:2222"), "expired")
	g.lab.Eventually(20*time.Second, "the metrics to count 2 sockets", func() bool { // counted after the reset
		_, metrics := g.call(http.MethodGet, "/metrics", "")
		return strings.Contains(metrics, `caddy_knock_flows_cut_total{what="socket"} 2`)
	})
	// Drain, after a reload.
	g.write(strings.Replace(g.text, "on_expire cut", "on_expire drain", 1))
	g.host.Run(program.Caddy(t), "reload", "--config", g.file, "--address", g.admin)
	if status, _ := g.call(http.MethodDelete, "/knock/grants?client=alice", ""); status != http.StatusOK {
		t.Fatal("revoking failed")
	}
	if !answers(conn6) {
		t.Error("a connection died where it should drain")
	}
	g.shut("at the end")
}

// TestCutWithoutPrivileges: a Caddy that may not cut says so when it loads.
func TestCutWithoutPrivileges(t *testing.T) {
	program.Need(t, "setpriv")
	if os.Getuid() != 0 {
		program.Missing(t, "root, to become somebody else")
	}
	// Somebody else reads nothing below the test's own folder.
	dir, err := os.MkdirTemp("", "knock-cut")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "Caddyfile")
	text := "{\n\tadmin off\n\tpersist_config off\n\tknock {\n\t\tservice ssh tcp/2222 {\n\t\t\ton_expire cut\n\t\t}\n\t\tstore memory\n\t}\n}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	caddy := filepath.Join(dir, "caddy")
	if out, err := exec.Command("cp", program.Caddy(t), caddy).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", caddy, "run", "--config", file)
	cmd.Env = []string{"HOME=" + dir}
	p := program.Start(t, cmd)
	p.Await(t, "the warning", func() bool {
		out := p.Log.String()
		return strings.Contains(out, "on_expire cut: not all established connections") && strings.Contains(out, "SOCK_DESTROY): ") && strings.Contains(out, "conntrack cannot be asked")
	})
}
