// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package ssh

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// TestSSH goes both ways, with all that rides on ssh.
func TestSSH(t *testing.T) {
	s := start(t)
	for name, w := range map[string]way{"connect": s.byConnect(t), "forward": s.byForward(t)} {
		t.Run(name, func(t *testing.T) {
			t.Run("a command", func(t *testing.T) {
				got := program.Run(t, "ssh", append(w.options, "-p", w.port, s.user+"@127.0.0.1", "cat; echo done")...)
				if got != "done\n" {
					t.Errorf("got %q", got)
				}
			})
			t.Run("scp", func(t *testing.T) { s.scp(t, w) })
			t.Run("rsync", func(t *testing.T) { s.rsync(t, w) })
			t.Run("port forwarding", func(t *testing.T) { s.forwarding(t, w) })
		})
	}
	t.Run("plain ssh", func(t *testing.T) {
		cmd := exec.Command("ssh", append(s.plainOptions(), "-p", s.byConnect(t).port, s.user+"@127.0.0.1", "echo let in")...)
		if out, err := cmd.CombinedOutput(); err == nil || bytes.Contains(out, []byte("let in\n")) {
			t.Errorf("it was let in: %s", out)
		}
	})
}

// files makes a folder with files of several sizes.
func files(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "files")
	if err := os.MkdirAll(filepath.Join(dir, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, size := range []int{0, 1, 4096, 16 << 20} {
		data := make([]byte, size)
		_, _ = rand.Read(data)
		name := filepath.Join(dir, fmt.Sprint("file", i))
		if i%2 == 1 {
			name = filepath.Join(dir, "below", fmt.Sprint("file", i))
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func same(t *testing.T, a, b string) {
	t.Helper()
	program.Run(t, "diff", "-r", a, b)
}

func (s *site) scp(t *testing.T, w way) {
	scp := program.Need(t, "scp")
	from := files(t)
	there, back := from+"-there", from+"-back"
	options := append(w.options, "-q", "-r", "-P", w.port)
	program.Run(t, scp, append(options, from, s.user+"@127.0.0.1:"+there)...)
	same(t, from, there)
	program.Run(t, scp, append(options, s.user+"@127.0.0.1:"+there, back)...)
	same(t, from, back)
}

func (s *site) rsync(t *testing.T, w way) {
	rsync := program.Need(t, "rsync")
	from := files(t)
	there, back := from+"-there", from+"-back"
	// rsync splits the command at blanks; quotes keep the ProxyCommand together.
	var shell strings.Builder
	shell.WriteString("ssh -p " + w.port)
	for _, option := range w.options {
		shell.WriteString(" '" + option + "'")
	}
	run := func(from, to string) {
		t.Helper()
		program.Run(t, rsync, "-a", "-e", shell.String(), from+"/", to+"/")
	}
	run(from, s.user+"@127.0.0.1:"+there)
	same(t, from, there)
	run(s.user+"@127.0.0.1:"+there, back)
	same(t, from, back)
	// A second time, there is little to do.
	if err := os.WriteFile(filepath.Join(from, "file4"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(from, s.user+"@127.0.0.1:"+there)
	same(t, from, there)
}

// forwarding sends requests that end through `ssh -L`, and expects whole answers.
func (s *site) forwarding(t *testing.T, w way) {
	local := program.FreeAddress(t)
	p := program.Start(t, exec.Command("ssh", append(w.options, "-N", "-o", "ExitOnForwardFailure=yes",
		"-L", local+":"+apptest.Echo(t, "through the tunnel: "), "-p", w.port, s.user+"@127.0.0.1")...))
	p.AwaitListener(t, local)
	request := strings.Repeat("request ", 20_000)
	for range 20 {
		conn, err := net.Dial("tcp", local)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			_, _ = io.WriteString(conn, request)
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		answer, err := io.ReadAll(conn)
		if err != nil || string(answer) != "through the tunnel: "+request {
			t.Errorf("got %d bytes, %v", len(answer), err)
		}
		_ = conn.Close()
	}
}
