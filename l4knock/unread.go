// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"errors"
	"net"

	"github.com/mholt/caddy-l4/layer4"
)

// headConn is a connection with bytes that were read from it and not used: they
// are read again first.
type headConn struct {
	net.Conn
	head []byte
}

// Read returns the bytes that were read before, then those of the connection.
func (c *headConn) Read(p []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.head)
	if c.head = c.head[n:]; len(c.head) == 0 {
		c.head = nil
	}
	return n, nil
}

// CloseWrite ends the sending half. A connection without halves stays as it is:
// closing it would lose what still comes.
func (c *headConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// unread gives bytes back that were read through cx. Everything that caddy-l4
// had prefetched must have been read: then cx's own buffer is empty.
func unread(cx *layer4.Connection, head []byte) *layer4.Connection {
	if len(head) == 0 {
		return cx
	}
	return cx.Wrap(&headConn{Conn: cx.Conn, head: head})
}
