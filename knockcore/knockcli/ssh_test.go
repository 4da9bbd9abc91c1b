// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package knockcli_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient/clienttest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// TestRealSSH runs ssh with the lines that ssh-config prints, to a sshd that
// only knockers reach.
func TestRealSSH(t *testing.T) {
	sshd, keygen, ssh := program.Need(t, "sshd"), program.Need(t, "ssh-keygen"), program.Need(t, "ssh")
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hostKey, userKey := filepath.Join(dir, "host_key"), filepath.Join(dir, "user_key")
	for _, key := range []string{hostKey, userKey} {
		program.Run(t, keygen, "-q", "-t", "ed25519", "-N", "", "-f", key)
	}
	public, err := os.ReadFile(userKey + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		_ = os.MkdirAll("/run/sshd", 0o755) // Debian's sshd wants it
	}
	upstream := program.FreeAddress(t)
	program.Start(t, exec.Command(sshd, "-D", "-e", "-f", file("sshd_config", fmt.Sprintf(
		"ListenAddress %s\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nStrictModes no\nUsePAM no\n",
		upstream, hostKey, file("authorized_keys", string(public)))))).AwaitListener(t, upstream)

	server := startServer(t, &clienttest.Server{Serve: func(conn clienttest.Conn, _ *wire.TCPFrame) {
		up, err := net.Dial("tcp", upstream)
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = io.Copy(up, conn)
			_ = up.(*net.TCPConn).CloseWrite()
		})
		_, _ = io.Copy(conn, up)
		_ = conn.CloseWrite()
		wg.Wait()
	}})
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{Server: "127.0.0.1", Port: server.Port, ServerProof: true})
	t.Setenv("PATH", filepath.Dir(program.Client(t))+string(os.PathListSeparator)+os.Getenv("PATH"))
	user := strings.TrimSpace(program.Run(t, "id", "-un"))
	stanza := runProgram(t, nil, "ssh-config", "--alias", "guarded", "--user", user, "alice@127.0.0.1")
	stanza.want(t, 0)
	config := file("ssh_config", stanza.stdout+fmt.Sprintf(
		"\tIdentityFile %s\n\tIdentitiesOnly yes\n\tBatchMode yes\n\tStrictHostKeyChecking no\n\tUserKnownHostsFile /dev/null\n\tLogLevel ERROR\n", userKey))

	const size = 8 << 20
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), ssh, "-F", config, "guarded", "cat; echo said >&2")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = random(3, size), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	if !bytes.Equal(sum(&stdout), sum(random(3, size))) {
		t.Error("Something else came back")
	}
	if stderr.String() != "said\n" {
		t.Errorf("Standard error is %q, want only what the command said", &stderr)
	}
	if n := len(server.Frames()); n != 1 {
		t.Errorf("The server saw %d frames, want 1", n)
	}
}
