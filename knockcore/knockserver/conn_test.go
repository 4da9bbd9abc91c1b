// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// pipeConn is a connection of no known type, with means of its own to copy.
type pipeConn struct {
	net.Conn
	copied []string
}

func (p *pipeConn) ReadFrom(io.Reader) (int64, error) {
	p.copied = append(p.copied, "in")
	return 3, nil
}

func (p *pipeConn) WriteTo(io.Writer) (int64, error) {
	p.copied = append(p.copied, "out")
	return 4, nil
}

func TestCopiesByItsOwnMeans(t *testing.T) {
	inner := &pipeConn{}
	outer := WithHead(inner, []byte("head"))
	var b strings.Builder
	if n, err := io.Copy(&b, outer); n != 8 || err != nil || b.String() != "head" {
		t.Errorf("copied %d, %v, %q", n, err, b.String())
	}
	if n, err := io.Copy(outer, struct{ io.Reader }{strings.NewReader("x")}); n != 3 || err != nil {
		t.Errorf("copied %d, %v", n, err)
	}
	if got := strings.Join(inner.copied, " "); got != "out in" {
		t.Errorf("the connection beneath copied: %s", got)
	}
	if _, ok := outer.(closeWriter); ok {
		t.Error("it claims to close by halves")
	}
}

type shortWriter struct{ n int }

func (w shortWriter) Write(p []byte) (int, error) {
	if len(p) > w.n {
		return w.n, errors.New("full")
	}
	return len(p), nil
}

func TestWriteToKeepsWhatWasNotWritten(t *testing.T) {
	_, server := tcpPair(t)
	conn := WithHead(server, []byte("head"))
	if n, err := io.Copy(shortWriter{1}, conn); n != 1 || err == nil {
		t.Errorf("copied %d, %v", n, err)
	}
	rest := make([]byte, 8)
	if n, err := conn.Read(rest); string(rest[:n]) != "ead" || err != nil {
		t.Errorf("read %q, %v", rest[:n], err)
	}
}

// TestHeadIsReadOnce has many readers of one head.
func TestHeadIsReadOnce(t *testing.T) {
	client, server := tcpPair(t)
	head := bytes.Repeat([]byte("h"), 1000)
	conn := WithHead(server, head)
	go func() {
		_, _ = client.Write(head)
		_ = client.CloseWrite()
	}()
	read := make(chan int)
	for range 4 {
		go func() {
			n, total := 0, 0
			var err error
			for p := make([]byte, 7); err == nil; total += n {
				n, err = conn.Read(p)
			}
			read <- total
		}()
	}
	total := 0
	for range 4 {
		total += <-read
	}
	if total != 2000 {
		t.Errorf("%d bytes were read, expected 2000", total)
	}
}

// TestBareConns shows that the table of peers keeps no connection alive, and no
// entry of one that is gone.
func TestBareConns(t *testing.T) {
	var table bareConns
	entries := func() (n int) {
		table.peers.Range(func(any, any) bool { n++; return true })
		return n
	}
	func() {
		var conn net.TCPConn
		if !table.put(&conn, &Peer{Grant: &knockcore.Grant{Client: "alice"}}) || table.peerOf(&conn).Grant.Client != "alice" {
			t.Error("a connection was not found")
		}
		if table.peerOf(new(net.TCPConn)) != nil || entries() != 1 {
			t.Error("another one was")
		}
	}()
	if table.put(&pipeConn{}, nil) {
		t.Error("it took a connection of an unknown type")
	}
	for deadline := time.Now().Add(20 * time.Second); entries() > 0; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatal("the entry stays")
		}
	}
}
