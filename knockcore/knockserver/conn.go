// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// conn is a connection with bytes that were read from it and not used: they are
// read again first. If it was admitted, it knows by whom. Where the connection
// beneath can splice, so can this one, by ReadFrom and WriteTo.
type conn struct {
	net.Conn
	peer    *Peer  // nil for strangers
	release func() // called once, at the first Close; may be nil

	unread atomic.Bool // head is not empty
	mu     sync.Mutex
	head   []byte
	closed sync.Once
}

// halfConn is a conn whose halves can be closed apart.
type halfConn struct{ *conn }

type closeWriter interface{ CloseWrite() error }

// newConn puts head in front of raw. The result has a CloseWrite if raw has one.
func newConn(raw net.Conn, head []byte, peer *Peer, release func()) net.Conn {
	c := &conn{Conn: raw, peer: peer, release: release, head: head}
	c.unread.Store(len(head) > 0)
	if _, ok := raw.(closeWriter); ok {
		return halfConn{c}
	}
	return c
}

// WithHead returns a connection from which head is read first, then what comes
// from c; c itself if head is empty. It has a CloseWrite if c has one, and NetConn
// returns c.
func WithHead(c net.Conn, head []byte) net.Conn {
	if len(head) == 0 {
		return c
	}
	return newConn(c, head, nil, nil)
}

// Read returns the bytes that were read before, then those of the connection.
func (c *conn) Read(p []byte) (int, error) {
	if c.unread.Load() {
		if n := c.takeHead(func(head []byte) int { return copy(p, head) }); n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return c.Conn.Read(p)
}

// takeHead lets f use up some of head.
func (c *conn) takeHead(f func(head []byte) int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.head) == 0 {
		return 0
	}
	n := f(c.head)
	if c.head = c.head[n:]; len(c.head) == 0 {
		c.head = nil
		c.unread.Store(false)
	}
	return n
}

// WriteTo copies what is read to w, by the connection's own means.
func (c *conn) WriteTo(w io.Writer) (int64, error) {
	var err error
	n := int64(c.takeHead(func(head []byte) int {
		var n int
		n, err = w.Write(head)
		return max(0, min(n, len(head)))
	}))
	if err != nil {
		return n, err
	}
	m, err := io.Copy(w, c.Conn)
	return n + m, err
}

// ReadFrom writes what comes from r, by the connection's own means.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// Close closes the connection.
func (c *conn) Close() error {
	c.closed.Do(func() {
		if c.release != nil {
			c.release()
		}
	})
	return c.Conn.Close()
}

// NetConn returns the connection beneath, from which what was read ahead is
// missing.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (c *conn) knockPeer() *Peer { return c.peer }

// CloseWrite ends the sending half.
func (c halfConn) CloseWrite() error { return c.Conn.(closeWriter).CloseWrite() }
