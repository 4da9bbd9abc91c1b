// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package modes drives the four gate modes, each between network namespaces, with
// the built Caddy as its stock unit runs it, Debian's sshd, ssh and nmap.
package modes

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

func TestMain(m *testing.M) { program.Main(m) }

const (
	host4, host6         = "192.0.2.1", "2001:db8:1::1"
	hostToStranger       = "198.51.100.1"
	alice4, alice6       = "192.0.2.2", "2001:db8:1::2"
	stranger4, stranger6 = "198.51.100.2", "2001:db8:2::2"

	nobody = "65534"
	// What Caddy's stock unit may do.
	unitCaps = "-all,+net_admin,+net_bind_service"
	noCaps   = "-all"
)

// site is an example that runs on a host between alice and a stranger.
type site struct {
	*testing.T
	lab                   *netlab.Lab
	host, alice, stranger *netlab.NS

	dir    string // that Caddy's user may enter
	client string // caddy-knock
	caddy  *program.Process
	creds  map[string]*knockcore.Credential
	userKey,
	user string
}

func newSite(t *testing.T) *site {
	t.Helper()
	netlab.Need(t, "nft", "setpriv", "nmap", "ssh", "sshd", "ssh-keygen")
	dir, err := os.MkdirTemp("/tmp", "knock-modes-") // not below a folder that only we may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &site{T: t, lab: netlab.New(t), dir: dir, client: program.Client(t), creds: make(map[string]*knockcore.Credential)}
	s.host, s.alice, s.stranger = s.lab.NS("host"), s.lab.NS("alice"), s.lab.NS("stranger")
	s.lab.Link(s.host, []string{host4 + "/24", host6 + "/64"}, s.alice, []string{alice4 + "/24", alice6 + "/64"})
	s.lab.Link(s.host, []string{hostToStranger + "/24", "2001:db8:2::1/64"}, s.stranger, []string{stranger4 + "/24", stranger6 + "/64"})
	s.stranger.DefaultRoute(hostToStranger, "2001:db8:2::1")
	s.alice.DefaultRoute(host4, host6)
	for _, name := range []string{"alice", "bob"} {
		secret := "the secret of " + name + ", long enough"
		s.write(name+".key", secret+"\n")
		cred := &knockcore.Credential{Client: &knockcore.Client{ID: name}, Secret: knockcore.NewSecret([]byte(secret))}
		cred.MAC = knockcore.NewMAC(cred.Secret.Bytes())
		s.creds[name] = cred
	}
	return s
}

func (s *site) write(name, text string) string {
	s.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	return path
}

// start runs the Caddyfile of the mode as a user without any right but caps.
func (s *site) start(mode, caps string) {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(mode, "Caddyfile"))
	if err != nil {
		s.Fatal(err)
	}
	file := s.write("Caddyfile", strings.ReplaceAll(string(text), "/etc/caddy/knock/", s.dir+"/"))
	exe := filepath.Join(s.dir, "caddy")
	program.Run(s, "install", "-m", "755", program.Caddy(s), exe)
	program.Run(s, "chown", "-R", nobody+":"+nobody, s.dir)
	s.run(exe, file, caps)
}

func (s *site) run(exe, file, caps string) {
	s.Helper()
	cmd := s.host.Command(context.Background(), "setpriv", "--reuid="+nobody, "--regid="+nobody, "--clear-groups", "--no-new-privs",
		"--inh-caps="+caps, "--ambient-caps="+caps, "--bounding-set="+caps, exe, "run", "--config", file)
	cmd.Env = append(os.Environ(), "HOME="+s.dir, "XDG_DATA_HOME="+s.dir+"/data", "XDG_CONFIG_HOME="+s.dir+"/config")
	s.caddy = program.Start(s, cmd)
	s.caddy.Await(s, "Caddy to serve", func() bool { return strings.Contains(s.caddy.Log.String(), "serving initial configuration") })
}

// sshd runs Debian's sshd on the host.
func (s *site) sshd(address string) {
	s.Helper()
	_ = os.MkdirAll("/run/sshd", 0o755) // Debian's sshd wants it
	dir := s.TempDir()
	hostKey := filepath.Join(dir, "host_key")
	s.userKey, s.user = filepath.Join(dir, "user_key"), strings.TrimSpace(program.Run(s, "id", "-un"))
	for _, key := range []string{hostKey, s.userKey} {
		program.Run(s, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	}
	config := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(config, fmt.Appendf(nil, "ListenAddress %s\nHostKey %s\nAuthorizedKeysFile %s.pub\nPidFile none\nStrictModes no\nUsePAM no\n",
		address, hostKey, s.userKey), 0o600); err != nil {
		s.Fatal(err)
	}
	p := program.Start(s, s.host.Command(context.Background(), program.Need(s, "sshd"), "-D", "-e", "-f", config))
	p.Await(s, "sshd", func() bool { return strings.Contains(p.Log.String(), "listening on") })
}

// ssh runs a command by ssh from alice's machine.
func (s *site) ssh(options ...string) (string, error) {
	s.Helper()
	args := append([]string{"ssh"}, options...) // the first of an option counts
	return s.alice.Try(append(args, "-F", "none", "-i", s.userKey, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-l", s.user, host4, "echo let in")...)
}

// proxied is ssh through `caddy-knock connect`, with the flags of a profile.
func (s *site) proxied(profile ...string) (string, error) {
	s.Helper()
	home := filepath.Join(s.dir, "home-"+fmt.Sprint(len(profile)))
	if _, err := os.Stat(home); err != nil {
		s.cli(home, append([]string{"profile", "add", "alice", "--server", host4 + ":2222", "--secret-file", s.dir + "/alice.key", "--server-proof"}, profile...)...)
	}
	return s.ssh("-p", "2222", "-o", fmt.Sprintf("ProxyCommand=env HOME=%s XDG_CONFIG_HOME=%s %s connect alice@%%h:%%p", home, home, s.client))
}

// cli runs caddy-knock on alice's machine.
func (s *site) cli(home string, args ...string) string {
	s.Helper()
	return s.alice.Run(append([]string{"env", "HOME=" + home, "XDG_CONFIG_HOME=" + home, s.client}, args...)...)
}

func (s *site) wantIn(out string, err error) {
	s.Helper()
	if err != nil || out != "let in\n" {
		s.Errorf("not let in: %v %s", err, out)
	}
}

func (s *site) wantOut(out string, err error) {
	s.Helper()
	if err == nil || strings.Contains(out, "let in\n") {
		s.Errorf("let in: %v %s", err, out)
	}
}

// knock sends a datagram with a session, for the port.
func (s *site) knock(client string, port uint16, session []byte) {
	s.Helper()
	d := wire.Datagram{Method: knockcore.MethodUDP, Port: port, Time: time.Now().UnixMilli(), Session: session}
	b, err := d.Seal(s.creds[client])
	if err != nil {
		s.Fatal(err)
	}
	conn, err := s.alice.Dial("udp", net.JoinHostPort(host4, "62201"), time.Second)
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(b); err != nil {
		s.Fatal(err)
	}
}

// frame connects from the machine with a frame, and returns the connection and
// the first line of what answers. Nobody listens: the line is empty.
func (s *site) frame(from *netlab.NS, to, client string, session []byte) (net.Conn, string) {
	s.Helper()
	f := wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: 2222, Time: time.Now().UnixMilli(), Session: session}
	b, err := f.Seal(s.creds[client])
	if err != nil {
		s.Fatal(err)
	}
	return s.say(from, to, string(b))
}

// say connects, says something and returns the first line of the answer.
func (s *site) say(from *netlab.NS, to, text string) (net.Conn, string) {
	s.Helper()
	conn, err := from.Dial("tcp", net.JoinHostPort(to, "2222"), 20*time.Second)
	if err != nil {
		return nil, ""
	}
	s.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, text+"GET / HTTP/1.0\r\n\r\n")
	line := make([]byte, len(isCover))
	n, _ := io.ReadFull(conn, line)
	return conn, string(line[:n])
}

const (
	isSSHD, isCover = "SSH-2.0", "HTTP/1."
)

// scan is what nmap says of the ports, such as "22/filtered/tcp", from the
// stranger's machine.
func (s *site) scan(ports string, want ...string) {
	s.Helper()
	for _, target := range [][]string{{hostToStranger}, {"-6", "2001:db8:2::1"}} {
		out := s.stranger.Run(append([]string{"nmap", "-n", "-Pn", "-sS", "-sU", "--max-retries", "1", "-p", ports, "-oG", "-"}, target...)...)
		for _, w := range want {
			if !strings.Contains(out, w) {
				s.Errorf("nmap does not say %s:\n%s", w, out)
			}
		}
	}
}

func (s *site) want(from *netlab.NS, network, address string, want netlab.State, when string) {
	s.Helper()
	if got := from.ProbeFor(network, address, want); got != want {
		s.Errorf("%s: %s %s is %s from %s, want %s", when, network, address, got, from.Name, want)
	}
}

// unprivileged checks that Caddy really has no more than it should.
func (s *site) unprivileged(caps string) {
	s.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.caddy.Cmd.Process.Pid))
	if err != nil {
		s.Fatal(err)
	}
	for _, want := range []string{"\nUid:\t65534\t65534\t65534\t65534\n", "\nCapEff:\t" + caps + "\n", "\nCapBnd:\t" + caps + "\n"} {
		if !strings.Contains(string(status), want) {
			s.Errorf("Caddy runs with other rights than %q:\n%s", want, status)
		}
	}
}
