// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// wrapped is a Caddy whose HTTP server stands behind the frame.
type wrapped struct {
	port  int
	roots *x509.CertPool
	text  string // the Caddyfile
}

// certificate writes a certificate for 127.0.0.1 and its key.
func certificate(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return cert, key, roots
}

// wrap writes a Caddyfile: options are the wrapper's, site is the site's block.
func wrap(t *testing.T, scheme, options, site string) *wrapped {
	t.Helper()
	w := &wrapped{port: program.FreePort(t)}
	servers := "protocols h1 h2"
	if scheme == "https" {
		var cert, key string
		cert, key, w.roots = certificate(t)
		site = fmt.Sprintf("tls %s %s\n\t%s", cert, key, site)
	} else {
		servers = "protocols h1"
	}
	w.text = fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	log {
		level ERROR
	}
	storage file_system %s
	knock {
		client alice {
			secret "%s"
			services web
		}
		client bob {
			secret "the secret of bob, long enough"
			services web
		}
		service web tcp/%d
		store memory
	}
	servers {
		%s
		listener_wrappers {
			knock web {
				%s
			}
			tls
		}
	}
}
%s://127.0.0.1:%d {
	bind 127.0.0.1
	%s
}
`, t.TempDir(), secret, w.port, servers, options, scheme, w.port, site)
	return w
}

func serveWrapped(t *testing.T, scheme, options, site string) *wrapped {
	t.Helper()
	w := wrap(t, scheme, options, site)
	apptest.Load(t, w.text)
	return w
}

func (w *wrapped) address() string { return fmt.Sprintf("127.0.0.1:%d", w.port) }

func dialer(id, text string) *knockclient.Dialer {
	return &knockclient.Dialer{Config: knockclient.Config{
		ClientID: id, Secret: knockcore.NewSecret([]byte(text)), ServerProof: true, Timeout: 20 * time.Second,
	}}
}

func asAlice() *knockclient.Dialer { return dialer("alice", secret) }

func asBob() *knockclient.Dialer { return dialer("bob", "the secret of bob, long enough") }

// browser is an HTTP client that knocks, or a stranger if d is nil.
func (w *wrapped) browser(t *testing.T, d knockclient.ContextDialer, http2 bool) *http.Client {
	t.Helper()
	if d == nil {
		d = new(net.Dialer)
	}
	transport := &http.Transport{DialContext: d.DialContext, TLSClientConfig: &tls.Config{RootCAs: w.roots}, ForceAttemptHTTP2: http2}
	if !http2 {
		transport.TLSNextProto = make(map[string]func(string, *tls.Conn) http.RoundTripper)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Proto + " " + string(body)
}

func request(port int) string {
	return fmt.Sprintf("GET / HTTP/1.0\r\nHost: 127.0.0.1:%d\r\n\r\n", port)
}

// strangers are first bytes that must not get in; good was accepted before.
func strangers(t *testing.T, port int, good []byte) map[string][]byte {
	tampered := frame(t, port, nil)
	tampered[40] ^= 1
	return map[string][]byte{
		"tls":        []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 500)),
		"http":       []byte(request(port)),
		"replay":     append(good, request(port)...),
		"tampered":   append(tampered, bytes.Repeat([]byte("x"), 512)...),
		"stale":      frame(t, port, func(f *wire.TCPFrame) { f.Time -= 31_000 }),
		"wrong port": frame(t, port+1, nil),
		"a hint":     frame(t, port, nil)[:32],
		"silence":    nil,
	}
}

// endless is a site whose answers do not end.
func endless(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(rw, strings.Repeat("and so on ", 100)); err != nil {
				return
			}
			rw.(http.Flusher).Flush()
		}
	})}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	return ln.Addr().String()
}
