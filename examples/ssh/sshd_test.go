// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package ssh

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/examples/internal/stage"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

//go:embed Caddyfile
var caddyfile string

func TestMain(m *testing.M) { program.Main(m) }

// site is the example, running for real: Debian's sshd behind the built Caddy.
type site struct {
	alice   *stage.Alice
	dir     string
	guarded string // where Caddy listens
	userKey string
	user    string
}

func start(t *testing.T) *site {
	t.Helper()
	s := &site{
		alice: stage.NewAlice(t), dir: t.TempDir(), guarded: program.FreeAddress(t),
		user: strings.TrimSpace(program.Run(t, "id", "-un")),
	}
	sshd, cover := s.startSSHD(t), program.FreeAddress(t)
	program.StartCaddy(t, s.dir, strings.NewReplacer(
		"localhost:2019", program.FreeAddress(t),
		"/etc/caddy/knock/alice.key", s.alice.Key,
		"tcp/2222", "tcp/"+stage.PortOf(t, s.guarded),
		"\t\t:2222 {", "\t\t"+s.guarded+" {",
		"knock_relay 127.0.0.1:22", "knock_relay "+sshd,
		"127.0.0.1:8080", cover,
		"http://:8080 {", "http://:"+stage.PortOf(t, cover)+" {",
	).Replace(caddyfile), cover, s.guarded)
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

// startSSHD runs sshd with keys and a port of its own, and returns its address.
func (s *site) startSSHD(t *testing.T) string {
	t.Helper()
	sshd, keygen := program.Need(t, "sshd"), program.Need(t, "ssh-keygen")
	if os.Geteuid() == 0 {
		_ = os.MkdirAll("/run/sshd", 0o755) // Debian's sshd wants it
	}
	hostKey := filepath.Join(s.dir, "host_key")
	s.userKey = filepath.Join(s.dir, "user_key")
	for _, key := range []string{hostKey, s.userKey} {
		program.Run(t, keygen, "-q", "-t", "ed25519", "-N", "", "-f", key)
	}
	public, err := os.ReadFile(s.userKey + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	address := program.FreeAddress(t)
	config := s.write(t, "sshd_config", fmt.Sprintf(`ListenAddress %s
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
`, address, hostKey, s.write(t, "authorized_keys", string(public))))
	program.Start(t, exec.Command(sshd, "-D", "-e", "-f", config)).AwaitListener(t, address)
	return address
}

// way is how ssh gets to sshd.
type way struct {
	port    string
	options []string
}

func (s *site) plainOptions() []string {
	return []string{
		"-F", "none", "-i", s.userKey, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
	}
}

// byConnect is ssh with caddy-knock as its ProxyCommand.
func (s *site) byConnect(t *testing.T) way {
	t.Helper()
	proxy := fmt.Sprintf("ProxyCommand=%s connect %s %%h:%%p", s.alice.Program, strings.Join(s.alice.Flags(), " "))
	return way{stage.PortOf(t, s.guarded), append(s.plainOptions(), "-o", proxy)}
}

// byForward is ssh to a port that caddy-knock forwards.
func (s *site) byForward(t *testing.T) way {
	t.Helper()
	return way{stage.PortOf(t, s.alice.Forward(t, s.guarded)), s.plainOptions()}
}
