// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// secretOf is a secret of its own for each client.
func secretOf(id string) knockcore.Secret {
	return knockcore.NewSecret([]byte("a secret long enough, of " + id))
}

func client(id string) *knockcore.Client {
	return &knockcore.Client{ID: id, Secrets: []knockcore.Secret{secretOf(id)}}
}

func clients(t testing.TB, ids ...string) *knockserver.Clients {
	t.Helper()
	var list []*knockcore.Client
	for _, id := range ids {
		list = append(list, client(id))
	}
	c, err := knockserver.NewClients(list...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// frame makes a frame of alice.
func frame(t testing.TB, port int, change func(*wire.TCPFrame)) []byte {
	t.Helper()
	f := &wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: uint16(port), Time: time.Now().UnixMilli()}
	if change != nil {
		change(f)
	}
	b, err := f.Seal(&knockcore.Credential{Client: client("alice"), Secret: secretOf("alice")})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// guarded is a listener of cfg for alice, unless cfg says otherwise.
func guarded(t testing.TB, cfg knockserver.Config) net.Listener {
	t.Helper()
	if cfg.Clients == nil {
		cfg.Clients = clients(t, "alice")
	}
	ln, err := knockserver.NewListener(listen(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func port(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }

func dial(t testing.TB, ln net.Listener) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

// knock dials as a client, without a server proof.
func knock(t testing.TB, ln net.Listener, id string) *net.TCPConn {
	t.Helper()
	d := knockclient.Dialer{Config: knockclient.Config{ClientID: id, Secret: secretOf(id)}}
	conn, err := d.DialContext(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

// accept takes a connection within 20 seconds.
func accept(t testing.TB, ln net.Listener) net.Conn {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	accepted := make(chan result, 1)
	go func() {
		conn, err := ln.Accept()
		accepted <- result{conn, err}
	}()
	select {
	case r := <-accepted:
		if r.err != nil {
			t.Fatalf("accepting: %v", r.err)
		}
		t.Cleanup(func() { _ = r.conn.Close() })
		return r.conn
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was let in")
		return nil
	}
}

// serveEcho echoes each line in capitals' stead as it is, until the listener ends.
func serveEcho(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// echoes sends a line and expects it back.
func echoes(t testing.TB, conn net.Conn, line string) {
	t.Helper()
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || got != line+"\n" {
		t.Fatalf("got %q, %v instead of %q", got, err, line)
	}
}

// closed waits until the other side closes, and returns what it said before.
func closed(t testing.TB, conn net.Conn) string {
	t.Helper()
	said, err := io.ReadAll(conn)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatal("the connection was not closed")
	}
	return string(said)
}

// noneLeft waits until there are as few goroutines as before.
func noneLeft(t testing.TB, before int) {
	t.Helper()
	await(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}

func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("waited in vain for %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(time.Millisecond)
	}
}

// events collects what an observer is told.
type events struct {
	mu   sync.Mutex
	list []knockcore.Event
}

func (e *events) observe(event knockcore.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

func (e *events) count(kind knockcore.EventKind, reason knockcore.Reason) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.list {
		if event.Kind == kind && knockcore.ReasonOf(event.Err) == reason {
			n++
		}
	}
	return n
}
