// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// needPeer skips a test that needs a program of others, or fails it if
// KNOCK_REQUIRE_REAL=1 says that all of them must be there.
func needPeer(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("KNOCK_REQUIRE_REAL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// fwknopClient runs Debian's fwknop.
type fwknopClient struct{ path, home string }

func newFwknopClient(t *testing.T) *fwknopClient {
	t.Helper()
	path, err := exec.LookPath("fwknop")
	if err != nil {
		needPeer(t, "the fwknop client is not installed")
	}
	return &fwknopClient{path: path, home: t.TempDir()}
}

func (c *fwknopClient) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(c.path, args...)
	cmd.Dir = c.home
	cmd.Env = append(os.Environ(), "HOME="+c.home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("fwknop: %v\n%s", err, out)
	}
	return string(out)
}

// newKeys makes a key pair by fwknop --key-gen.
func (c *fwknopClient) newKeys(t *testing.T, hmacType string) (keys knockcore.FwknopKeys, args []string) {
	t.Helper()
	gen := []string{"--key-gen"}
	if hmacType != "" && !strings.HasPrefix(hmacType, "sha3") { // which --key-gen does not know
		gen = append(gen, "--hmac-digest-type", hmacType)
	}
	out := c.run(t, gen...)
	read := func(name string) (string, knockcore.Secret) {
		found := regexp.MustCompile(`(?m)^` + name + `: (\S+)$`).FindStringSubmatch(out)
		if found == nil {
			t.Fatalf("fwknop --key-gen prints no %s", name)
		}
		key, err := ParseFwknopKey("base64:" + found[1])
		if err != nil {
			t.Fatal(err)
		}
		return found[1], key
	}
	encText, enc := read("KEY_BASE64")
	macText, mac := read("HMAC_KEY_BASE64")
	keys = knockcore.FwknopKeys{Encryption: enc, HMAC: mac, HMACType: hmacType}
	if err := ValidateFwknopKeys(keys); err != nil || WeakFwknopKeys(keys) && hmacType == "" {
		t.Fatalf("the keys of fwknop --key-gen are not valid: %v", err)
	}
	args = []string{"--no-rc-file", "--no-save-args", "--key-base64-rijndael", encText, "--key-base64-hmac", macText}
	if hmacType != "" {
		args = append(args, "--hmac-digest-type", hmacType)
	}
	return keys, args
}

// TestRealFwknopClient reads what fwknop's own client makes.
func TestRealFwknopClient(t *testing.T) {
	client := newFwknopClient(t)
	for _, test := range []struct {
		name, hmacType string
		args           []string
		want           Fwknop
		reason         knockcore.Reason
	}{
		{
			name: "access", args: []string{"-A", "tcp/22", "-a", "203.0.113.7"},
			want: Fwknop{Type: FwknopAccess, Allow: peerAddr, Ports: fwknopPorts("tcp/22")},
		},
		{
			name: "source address", args: []string{"-A", "tcp/22,udp/1194", "-s"},
			want: Fwknop{Type: FwknopAccess, Allow: peerSource, Ports: fwknopPorts("tcp/22", "udp/1194")},
		},
		{
			name: "timeout", args: []string{"-A", "tcp/443", "-a", "203.0.113.7", "-f", "90"},
			want: Fwknop{Type: FwknopAccessTimeout, Allow: peerAddr, Ports: fwknopPorts("tcp/443"), Timeout: 90 * time.Second},
		},
		{
			name: "NAT", args: []string{"-A", "tcp/55022", "-a", "203.0.113.7", "-N", "10.0.0.5:22"},
			want: Fwknop{Type: FwknopNATAccess, Allow: peerAddr, Ports: fwknopPorts("tcp/55022"), NAT: "10.0.0.5,22"},
		},
		{
			name: "NAT and timeout", args: []string{"-A", "tcp/55022", "-s", "-N", "10.0.0.5:22", "-f", "5"},
			want: Fwknop{Type: FwknopNATTimeout, Allow: peerSource, Ports: fwknopPorts("tcp/55022"), NAT: "10.0.0.5,22", Timeout: 5 * time.Second},
		},
		{
			name: "local NAT", args: []string{"-A", "tcp/22", "-a", "203.0.113.7", "--nat-local", "--nat-port", "55000"},
			want: Fwknop{Type: FwknopLocalNAT, Allow: peerAddr, Ports: fwknopPorts("tcp/55000"), NAT: "198.51.100.1,22"},
		},
		{
			name: "command", args: []string{"-C", "id -un", "-a", "203.0.113.7"}, reason: knockcore.ReasonUnsupported,
			want: Fwknop{Type: FwknopCommand, Allow: peerAddr, Command: "id -un"},
		},
		{
			name: "HMAC MD5", hmacType: "md5", args: []string{"-A", "tcp/22", "-s"},
			want: Fwknop{Type: FwknopAccess, Allow: peerSource, Ports: fwknopPorts("tcp/22")},
		},
		{
			name: "HMAC SHA1", hmacType: "sha1", args: []string{"-A", "tcp/22", "-s"},
			want: Fwknop{Type: FwknopAccess, Allow: peerSource, Ports: fwknopPorts("tcp/22")},
		},
		{
			name: "HMAC SHA384", hmacType: "sha384", args: []string{"-A", "tcp/22", "-s"},
			want: Fwknop{Type: FwknopAccess, Allow: peerSource, Ports: fwknopPorts("tcp/22")},
		},
		{
			name: "HMAC SHA512, digest MD5", hmacType: "sha512", args: []string{"-A", "tcp/22", "-s", "-m", "md5"},
			want: Fwknop{Type: FwknopAccess, Allow: peerSource, Ports: fwknopPorts("tcp/22"), DigestType: "md5"},
		},
		{
			name: "HMAC SHA3-256", hmacType: "sha3_256", args: []string{"-A", "tcp/22", "-s", "-m", "sha3_512"},
			want: Fwknop{Type: FwknopAccess, Allow: peerSource, Ports: fwknopPorts("tcp/22"), DigestType: "sha3_512"},
		},
		{
			name: "HMAC SHA3-512", hmacType: "sha3_512", args: []string{"-A", "tcp/22", "-s", "-m", "sha512"},
			want: Fwknop{Type: FwknopAccess, Allow: peerSource, Ports: fwknopPorts("tcp/22"), DigestType: "sha512"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			keys, args := client.newKeys(t, test.hmacType)
			file := filepath.Join(t.TempDir(), "packet")
			client.run(t, append(append(args, "-T", "-B", file, "-U", "alice", "-D", "198.51.100.1"), test.args...)...)
			saved, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := OpenFwknop(keys, saved); knockcore.ReasonOf(err) != knockcore.ReasonMalformed {
				t.Errorf("with the newline of --save-packet: %v", err)
			}
			checkRealFwknop(t, keys, bytes.TrimSuffix(saved, []byte("\n")), test.want, test.reason)
		})
	}
}

// TestRealFwknopSends receives a packet that the client really sends.
func TestRealFwknopSends(t *testing.T) {
	client := newFwknopClient(t)
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	keys, args := client.newKeys(t, "")
	_, port, _ := strings.Cut(conn.LocalAddr().String(), ":")
	client.run(t, append(args, "-A", "tcp/22", "-s", "-U", "alice", "-D", "127.0.0.1", "-p", port)...)
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second)) // the client took its time before
	b := make([]byte, 2048)
	n, _, err := conn.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	checkRealFwknop(t, keys, b[:n], Fwknop{Type: FwknopAccess, Allow: peerSource, Ports: fwknopPorts("tcp/22")}, knockcore.ReasonNone)
}

func checkRealFwknop(t *testing.T, keys knockcore.FwknopKeys, packet []byte, want Fwknop, reason knockcore.Reason) {
	t.Helper()
	got, err := OpenFwknop(keys, packet)
	if got == nil || knockcore.ReasonOf(err) != reason {
		t.Fatalf("%s: %v", packet, err)
	}
	if age := time.Since(got.Timestamp()).Abs(); age > time.Minute || !isDigits(got.Rand) {
		t.Errorf("made %v ago, random value %s", age, got.Rand)
	}
	want.User, want.Version = "alice", "3.0.0"
	if want.DigestType == "" {
		want.DigestType = "sha256"
	}
	want.Rand, want.Time, want.Canonical = got.Rand, got.Time, got.Canonical
	if !equalFwknop(got, &want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
}
