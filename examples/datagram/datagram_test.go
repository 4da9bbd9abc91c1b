// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package datagram

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

//go:embed Caddyfile
var caddyfile string

func TestMain(m *testing.M) { program.Main(m) }

const (
	aliceSecret = "the libknock secret of alice"
	scriptKey   = "the pyknock key of the script"
)

// site is the example, running for real.
type site struct {
	caddy               *program.Process
	dir                 string
	ssh, files          string // where Caddy listens
	udp, pyknock        string // where it takes knocks
	phoneKey, phoneHMAC string
	fwknop              string
}

func start(t *testing.T) *site {
	t.Helper()
	s := &site{
		dir: t.TempDir(), ssh: program.FreeAddress(t), files: program.FreeAddress(t), udp: program.FreeAddress(t), pyknock: program.FreeAddress(t),
		fwknop: program.Need(t, "fwknop"),
	}
	out := s.run(t, s.fwknop, "--key-gen")
	key := func(name string) string {
		found := regexp.MustCompile(`(?m)^` + name + `: (\S+)$`).FindStringSubmatch(out)
		if found == nil {
			t.Fatalf("fwknop --key-gen prints no %s", name)
		}
		return found[1]
	}
	s.phoneKey, s.phoneHMAC = key("KEY_BASE64"), key("HMAC_KEY_BASE64")
	for name, text := range map[string]string{
		"alice.key": aliceSecret, "script.key": scriptKey, "phone.key": "base64:" + s.phoneKey, "phone.hmac": "base64:" + s.phoneHMAC,
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cover := program.FreeAddress(t)
	s.caddy = program.StartCaddy(t, s.dir, strings.NewReplacer(
		"localhost:2019", program.FreeAddress(t),
		"/etc/caddy/knock/", s.dir+"/",
		"\tknock {\n", "\tknock {\n\t\tallow_local\n", // all of this is on loopback
		"tcp/2222", "tcp/"+port(s.ssh), "tcp/8443", "tcp/"+port(s.files),
		"udp :62201", "udp "+s.udp, "udp :60120", "udp "+s.pyknock,
		"\t\t:2222 {", "\t\t"+s.ssh+" {", "\t\t:8443 {", "\t\t"+s.files+" {",
		"127.0.0.1:22\n", echo(t, "ssh\n")+"\n", "127.0.0.1:8444", echo(t, "files\n"),
		"127.0.0.1:8080", cover, "http://:8080 {", "http://:"+port(cover)+" {",
	).Replace(caddyfile), cover, s.ssh, s.files)
	// Who waits for a datagram gives no sign of it, and may be the last to start.
	s.caddy.Await(t, "Caddy to serve", func() bool { return strings.Contains(s.caddy.Log.String(), "serving initial configuration") })
	return s
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

// echo greets and echoes.
func echo(t *testing.T, greeting string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, greeting)
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return ln.Addr().String()
}

func (s *site) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "HOME="+s.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// talk says something to a port, half-closes and returns the answer.
func talk(t *testing.T, address string, say []byte) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write(say); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(conn) // the cover may reset what it does not like
	return string(answer)
}

var request = []byte("GET / HTTP/1.0\r\n\r\n")

// isCover reports whether somebody who comes to the port meets the cover.
func isCover(t *testing.T, address string) bool {
	t.Helper()
	return strings.HasSuffix(talk(t, address, request), "It works!")
}

func (s *site) send(t *testing.T, payload []byte) {
	t.Helper()
	c, err := net.Dial("udp", s.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
}

// filesAreThere reports whether the files are served to us.
func (s *site) filesAreThere(t *testing.T) bool {
	t.Helper()
	return talk(t, s.files, []byte("hello")) == "files\nhello"
}

func TestFwknop(t *testing.T) {
	s := start(t)
	if !isCover(t, s.files) {
		t.Fatal("the files are there for everybody")
	}
	// The memory of knocks is new, and what was made before it began is refused;
	// fwknop counts in whole seconds. So the phone may have to knock again.
	s.caddy.Await(t, "the files", func() bool {
		s.run(t, s.fwknop, "--no-rc-file", "--no-save-args", "-A", "tcp/"+port(s.files), "-s", "-D", "127.0.0.1", "-p", port(s.udp),
			"--use-hmac", "--key-base64-rijndael", s.phoneKey, "--key-base64-hmac", s.phoneHMAC)
		return s.filesAreThere(t)
	})
	if !isCover(t, s.ssh) {
		t.Error("the phone's knock opened SSH, too")
	}
}

func TestPyknock(t *testing.T) {
	s, python := start(t), program.Need(t, "python3")
	if !isCover(t, s.files) {
		t.Fatal("the files are there for everybody")
	}
	s.run(t, python, "-c", `
import hashlib, hmac, socket, struct, sys, time
body = struct.pack("<Bdi", 1, time.time(), socket.AF_INET) + socket.inet_aton("127.0.0.1")
packet = hmac.new(sys.argv[1].encode("latin-1"), body, hashlib.sha256).digest() + body
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(packet, ("127.0.0.1", int(sys.argv[2])))
`, scriptKey, port(s.pyknock))
	s.caddy.Await(t, "the files", func() bool { return s.filesAreThere(t) })
}

func TestKnockAndFrame(t *testing.T) {
	s := start(t)
	cred := &knockcore.Credential{Client: &knockcore.Client{ID: "alice"}, Secret: knockcore.NewSecret([]byte(aliceSecret))}
	cred.MAC = knockcore.NewMAC(cred.Secret.Bytes())
	protected, err := net.LookupPort("tcp", port(s.ssh))
	if err != nil {
		t.Fatal(err)
	}
	frame := func(session []byte) []byte {
		f := wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: uint16(protected), Time: time.Now().UnixMilli(), Session: session}
		b, err := f.Seal(cred)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	session := make([]byte, 16)
	_, _ = rand.Read(session)
	if got := talk(t, s.ssh, append(frame(session), request...)); strings.Contains(got, "ssh") {
		t.Fatalf("a frame without a knock: %q", got)
	}
	d := wire.Datagram{Method: knockcore.MethodUDP, Port: uint16(protected), Time: time.Now().UnixMilli(), Session: session}
	knock, err := d.Seal(cred)
	if err != nil {
		t.Fatal(err)
	}
	s.send(t, knock)
	if got := talk(t, s.ssh, append(frame(session), "hello"...)); got != "ssh\nhello" {
		t.Errorf("knock and frame: %q", got)
	}
	if got := talk(t, s.ssh, append(frame(bytes.Repeat([]byte{1}, 16)), request...)); strings.Contains(got, "ssh") {
		t.Errorf("the frame of another session: %q", got)
	}
	if !isCover(t, s.ssh) {
		t.Error("a knock alone shows SSH")
	}
}
