// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/examples"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

func TestMain(m *testing.M) { program.Main(m) }

// site is the example, running for real: a real sshd behind the built Caddy.
type site struct {
	caddy          *program.Process
	dir            string
	key            string // of alice
	guarded        string // where Caddy listens
	sshd           string // where sshd does
	sshKey         string
	clientProgram  string
	banner         string // the upstream's
	port, sshdPort string
}

func start(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), guarded: program.FreeAddress(t), clientProgram: program.Client(t)}
	s.startSSHD(t)
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	s.key = s.write(t, "alice.key", "base64:"+base64.StdEncoding.EncodeToString(key)+"\n")
	_, s.port, _ = net.SplitHostPort(s.guarded)
	cover := program.FreeAddress(t)
	_, coverPort, _ := net.SplitHostPort(cover)
	text := strings.NewReplacer(
		"localhost:2019", program.FreeAddress(t),
		"/etc/caddy/knock/alice.key", s.key,
		"tcp/2222", "tcp/"+s.port,
		"\t\t:2222 {", "\t\t"+s.guarded+" {",
		"127.0.0.1:22\n", s.sshd+"\n",
		"proxy 127.0.0.1:8080", "proxy "+cover,
		"http://:8080 {", "http://:"+coverPort+" {",
	).Replace(examples.Quickstart)
	s.caddy = program.StartCaddy(t, s.dir, text, cover, s.guarded)
	return s
}

func (s *site) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// startSSHD runs Debian's sshd with a key and port of its own.
func (s *site) startSSHD(t *testing.T) {
	t.Helper()
	sshd := program.Need(t, "sshd")
	keygen := program.Need(t, "ssh-keygen")
	program.Need(t, "ssh")
	program.Need(t, "scp")
	if os.Geteuid() == 0 {
		// Debian's sshd wants its privilege separation folder.
		_ = os.MkdirAll("/run/sshd", 0o755)
	}
	hostKey := filepath.Join(s.dir, "host_key")
	s.sshKey = filepath.Join(s.dir, "user_key")
	for _, key := range []string{hostKey, s.sshKey} {
		program.Run(t, keygen, "-q", "-t", "ed25519", "-N", "", "-f", key)
	}
	public, err := os.ReadFile(s.sshKey + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	s.sshd = program.FreeAddress(t)
	_, s.sshdPort, _ = net.SplitHostPort(s.sshd)
	config := s.write(t, "sshd_config", fmt.Sprintf(`ListenAddress %s
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
Subsystem sftp internal-sftp
`, s.sshd, hostKey, s.write(t, "authorized_keys", string(public))))
	p := program.Start(t, exec.Command(sshd, "-D", "-e", "-f", config))
	p.AwaitListener(t, s.sshd)
	conn, err := net.Dial("tcp", s.sshd)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if s.banner, err = bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
}

// options are ssh's, for connecting through caddy-knock or not.
func (s *site) options(knock bool) []string {
	options := []string{
		"-F", "none", "-i", s.sshKey, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
	}
	if knock {
		options = append(options, "-o", fmt.Sprintf("ProxyCommand=%s connect --client alice --secret-file %s --server-proof %%h:%%p", s.clientProgram, s.key))
	}
	return options
}

func user(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(program.Run(t, "id", "-un"))
}

func TestSSHThroughTheGuard(t *testing.T) {
	s := start(t)
	t.Run("a command", func(t *testing.T) {
		got := program.Run(t, "ssh", append(s.options(true), "-p", s.port, user(t)+"@127.0.0.1", "echo let in")...)
		if got != "let in\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a file of 64 MiB", func(t *testing.T) {
		data := make([]byte, 64<<20)
		_, _ = rand.Read(data)
		from, to := filepath.Join(s.dir, "from"), filepath.Join(s.dir, "to")
		if err := os.WriteFile(from, data, 0o600); err != nil {
			t.Fatal(err)
		}
		program.Run(t, "scp", append(s.options(true), "-q", "-P", s.port, from, user(t)+"@127.0.0.1:"+to)...)
		copied, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(copied) != sha256.Sum256(data) {
			t.Error("the copy differs")
		}
	})
	t.Run("plain ssh gets the cover", func(t *testing.T) {
		var stderr bytes.Buffer
		cmd := exec.Command("ssh", append(s.options(false), "-v", "-p", s.port, user(t)+"@127.0.0.1", "echo let in")...)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err == nil || bytes.Contains(out, []byte("let in")) {
			t.Fatalf("plain ssh was let in: %s", out)
		}
		if strings.Contains(stderr.String(), strings.TrimSpace(s.banner)) && !strings.Contains(s.banner, "OpenSSH") {
			t.Error("it saw the upstream's banner")
		}
	})
	t.Run("a stranger sees only the cover", func(t *testing.T) {
		conn, err := net.Dial("tcp", s.guarded)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		// What an SSH client says first: decided at once, answered by the cover.
		if _, err := conn.Write([]byte("SSH-2.0-stranger\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		answer := new(bytes.Buffer)
		_, _ = answer.ReadFrom(conn)
		if bytes.Contains(answer.Bytes(), []byte("SSH-")) || !bytes.HasPrefix(answer.Bytes(), []byte("HTTP/1.1 400")) {
			t.Errorf("got %q", answer)
		}
	})
}
