// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// patience bounds waiting for what must happen; no test passes by it.
const patience = 30 * time.Second

// half is a connection that can be closed halfway.
type half interface {
	net.Conn
	CloseWrite() error
}

// tcpPair is both ends of a TCP connection.
func tcpPair(tb testing.TB) (half, half) { return pairOn(tb, "tcp", "127.0.0.1:0") }

func unixPair(tb testing.TB) (half, half) {
	return pairOn(tb, "unix", filepath.Join(tb.TempDir(), "s"))
}

func pairOn(tb testing.TB, network, address string) (half, half) {
	tb.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		tb.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			tb.Fatal(err)
		}
	}
	return a.(half), b.(half)
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"relay"}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// tlsPair is both ends of a TLS connection after the handshake.
func tlsPair(tb testing.TB) (half, half) {
	tb.Helper()
	a, b := tcpPair(tb)
	client := tls.Client(a, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test
	server := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{certificate()}})
	failed := make(chan error, 1)
	go func() { failed <- client.Handshake() }()
	if err := server.Handshake(); err != nil {
		tb.Fatal(err)
	}
	if err := <-failed; err != nil {
		tb.Fatal(err)
	}
	return client, server
}

// kinds are the sorts of connections that relays are tested with.
var kinds = map[string]func(testing.TB) (half, half){"tcp": tcpPair, "unix": unixPair, "tls": tlsPair}

// rig is a relay between a client and a server.
type rig struct {
	*Relay
	client, server half
	done           chan Stats
}

// newRig makes a relay that does not run yet.
func newRig(tb testing.TB, down, up string, head string, opts *Options) *rig {
	tb.Helper()
	g := &rig{done: make(chan Stats, 1)}
	var d, u half
	g.client, d = kinds[down](tb)
	u, g.server = kinds[up](tb)
	g.Relay = New(d, []byte(head), u, opts)
	return g
}

// start makes a relay and runs it.
func start(tb testing.TB, down, up string, opts *Options) *rig {
	tb.Helper()
	g := newRig(tb, down, up, "", opts)
	g.run(tb, tb.Context())
	return g
}

func (g *rig) run(tb testing.TB, ctx context.Context) {
	tb.Cleanup(func() {
		g.Cut(nil)
		g.wait(tb)
	})
	go func() { g.done <- g.Run(ctx) }()
}

// bare is the socket under c.
func bare(c net.Conn) net.Conn {
	if w, ok := c.(interface{ NetConn() net.Conn }); ok {
		return w.NetConn()
	}
	return c
}

// setBuffers sets the size of all socket buffers.
func (g *rig) setBuffers(tb testing.TB, size int) {
	tb.Helper()
	for _, c := range []net.Conn{g.client, g.down.conn, g.up.conn, g.server} {
		b := bare(c).(interface {
			SetReadBuffer(int) error
			SetWriteBuffer(int) error
		})
		if err := errors.Join(b.SetReadBuffer(size), b.SetWriteBuffer(size)); err != nil {
			tb.Fatal(err)
		}
	}
}

// wait is for the relay's end; it may be called more than once.
func (g *rig) wait(tb testing.TB) Stats {
	tb.Helper()
	select {
	case s := <-g.done:
		g.done <- s
		return s
	case <-time.After(patience):
		tb.Fatal("the relay does not end")
		return Stats{}
	}
}

// mustWrite and mustRead are for small amounts, which don't block.
func mustWrite(tb testing.TB, c net.Conn, s string) {
	tb.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		tb.Fatal(err)
	}
}

func mustRead(tb testing.TB, c net.Conn, want string) {
	tb.Helper()
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(c, buf); err != nil {
		tb.Fatalf("reading %q: %v", want, err)
	}
	if string(buf) != want {
		tb.Fatalf("got %q, want %q", buf, want)
	}
}

func mustEnd(tb testing.TB, c net.Conn) {
	tb.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		tb.Fatalf("read %d, %v, want the end", n, err)
	}
}

// block writes to c until it takes no more, and returns how much it took. The
// other side must not read. Only a write of nothing counts: what was taken in part
// may go on when a busy machine lets the relay run again.
func block(tb testing.TB, c net.Conn) (n int64) {
	tb.Helper()
	defer c.SetWriteDeadline(time.Now().Add(patience))
	buf := make([]byte, 64<<10)
	for {
		if err := c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			tb.Fatal(err)
		}
		m, err := c.Write(buf)
		n += int64(m)
		if e, ok := err.(net.Error); ok && e.Timeout() {
			if m == 0 {
				return n
			}
			continue
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
}
