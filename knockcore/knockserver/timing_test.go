// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver_test

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// pipes is a listener whose connections are pipes, for time that is not real.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	close(p.closed)
	return nil
}

func (pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "pipe"} }

// TestStrangersLookAlike shows that without a cover every stranger is closed at
// the same time after it came, whatever it sends: nothing tells a captured hint
// from random bytes, or where a frame's parts end.
func TestStrangersLookAlike(t *testing.T) {
	const wait = 7 * time.Second
	synctest.Test(t, func(t *testing.T) {
		raw := pipes{make(chan net.Conn), make(chan struct{})}
		ln, err := knockserver.NewListener(raw, knockserver.Config{Clients: clients(t, "alice"), Port: 22, Wait: wait})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go serveEcho(ln)
		tampered := frame(t, 22, nil)
		tampered[40] ^= 1
		for name, head := range map[string][]byte{
			"nothing":           nil,
			"one byte":          {1},
			"http":              []byte("GET / HTTP/1.1\r\n\r\n"),
			"a hint":            frame(t, 22, nil)[:32],
			"no hint":           make([]byte, 32),
			"half a frame":      frame(t, 22, nil)[:64],
			"a tampered frame":  tampered,
			"more than a frame": make([]byte, 600),
			"a stale frame":     frame(t, 22, func(f *wire.TCPFrame) { f.Time -= 60_000 }),
		} {
			peer, conn := net.Pipe()
			raw.conns <- conn
			came := time.Now()
			go func() { _, _ = peer.Write(head) }()
			if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%s: %v", name, err)
			}
			if after := time.Since(came); after != wait {
				t.Errorf("%s: closed after %v", name, after)
			}
			_ = peer.Close()
		}
	})
}
