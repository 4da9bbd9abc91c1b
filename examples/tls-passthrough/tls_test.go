// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package tlspassthrough

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/examples/internal/stage"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

//go:embed Caddyfile
var caddyfile string

func TestMain(m *testing.M) { program.Main(m) }

// site is the example with OpenSSL's server as the upstream that terminates TLS.
type site struct {
	alice        *stage.Alice
	openssl      string
	certificate  string // of the upstream, a file
	roots        *x509.CertPool
	vault, db    string // where Caddy listens
	upstreamCert []byte
}

func start(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{
		alice: stage.NewAlice(t), openssl: program.Need(t, "openssl"), certificate: filepath.Join(dir, "vault.crt"),
		vault: program.FreeAddress(t), db: program.FreeAddress(t), roots: x509.NewCertPool(),
	}
	key, upstream := filepath.Join(dir, "vault.key"), program.FreeAddress(t)
	program.Run(t, s.openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
		"-subj", "/CN=vault.example.org", "-addext", "subjectAltName=DNS:vault.example.org", "-keyout", key, "-out", s.certificate)
	s.upstreamCert = s.addRoot(t, s.certificate)
	server := program.Start(t, exec.Command(s.openssl, "s_server", "-accept", upstream, "-cert", s.certificate, "-key", key, "-www", "-quiet"))
	server.AwaitListener(t, upstream)

	cover := program.FreeAddress(t)
	p := program.StartCaddy(t, dir, strings.NewReplacer(
		"localhost:2019\n", program.FreeAddress(t)+"\n\tlocal_certs\n\tskip_install_trust\n\tauto_https disable_redirects\n",
		"/etc/caddy/knock/alice.key", s.alice.Key,
		"tcp/8443", "tcp/"+stage.PortOf(t, s.vault), "\t:8443 {", "\t"+s.vault+" {",
		"tcp/8444", "tcp/"+stage.PortOf(t, s.db), "\t:8444 {", "\t"+s.db+" {",
		"127.0.0.1:9080", cover, ":9080", ":"+stage.PortOf(t, cover),
		"127.0.0.1:9443", upstream,
		"127.0.0.1:5432", apptest.Echo(t, "the database\n"),
	).Replace(caddyfile), s.vault, s.db, cover)
	root := filepath.Join(dir, "data", "caddy", "pki", "authorities", "local", "root.crt")
	p.Await(t, "Caddy's root certificate", func() bool {
		_, err := os.Stat(root)
		return err == nil
	})
	s.addRoot(t, root)
	p.Await(t, "the certificate of the cover", func() bool {
		conn, err := s.dial(new(net.Dialer), cover, "www.example.org")
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return s
}

// addRoot makes a certificate trusted, and returns it.
func (s *site) addRoot(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil || !s.roots.AppendCertsFromPEM(text) {
		t.Fatalf("there is no certificate in %s", file)
	}
	return block.Bytes
}

type contextDialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// dial makes a TLS connection that expects the name.
func (s *site) dial(d contextDialer, address, name string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{RootCAs: s.roots, ServerName: name})
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// exchange sends a request, its end, and returns the whole answer.
func exchange(t *testing.T, conn *tls.Conn, request string) string {
	t.Helper()
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("after %q: %v", answer, err)
	}
	return string(answer)
}

func TestTLSBehindTheFrame(t *testing.T) {
	s := start(t)
	t.Run("the upstream's certificate comes through unchanged", func(t *testing.T) {
		conn, err := s.dial(s.alice.Dialer(), s.vault, "vault.example.org")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if !bytes.Equal(conn.ConnectionState().PeerCertificates[0].Raw, s.upstreamCert) {
			t.Error("it is another certificate")
		}
		_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		if answer, _ := io.ReadAll(conn); !bytes.Contains(answer, []byte("s_server")) {
			t.Errorf("the upstream answered %q", answer)
		}
	})
	t.Run("to OpenSSL's client too", func(t *testing.T) {
		cmd := exec.Command(s.openssl, "s_client", "-connect", s.alice.Forward(t, s.vault), "-servername", "vault.example.org",
			"-CAfile", s.certificate, "-verify_return_error", "-verify_hostname", "vault.example.org", "-showcerts")
		cmd.Stdin = strings.NewReader("Q\n")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		want, err := os.ReadFile(s.certificate)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(out, bytes.TrimSpace(want)) {
			t.Errorf("it saw another certificate:\n%s", out)
		}
	})
	t.Run("Caddy terminates TLS behind the frame", func(t *testing.T) {
		for range 20 {
			conn, err := s.dial(s.alice.Dialer(), s.db, "www.example.org")
			if err != nil {
				t.Fatal(err)
			}
			if got := exchange(t, conn, "select"); got != "the database\nselect" {
				t.Errorf("got %q", got)
			}
		}
	})
	t.Run("strangers see the cover and its certificate", func(t *testing.T) {
		for _, address := range []string{s.vault, s.db} {
			if conn, err := s.dial(new(net.Dialer), address, "vault.example.org"); err == nil {
				_ = conn.Close()
				t.Error("a stranger saw the upstream")
			}
			conn, err := s.dial(new(net.Dialer), address, "www.example.org")
			if err != nil {
				t.Fatal(err)
			}
			port := stage.PortOf(t, address)
			got := exchange(t, conn, "GET / HTTP/1.1\r\nHost: www.example.org:"+port+"\r\nConnection: close\r\n\r\n")
			if !strings.HasSuffix(got, "It works!") {
				t.Errorf("a stranger got %q", got)
			}
		}
	})
}
