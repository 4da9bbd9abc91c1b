// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Peer is who was admitted, and by which frame.
type Peer struct {
	// Grant is the decision; its Client, Service, Method, Session and Source are
	// those of the stream.
	Grant *knockcore.Grant
	// Time is the frame's timestamp, in ms.
	Time time.Time
	// KnockMethod is the free text that libknock frames carry as their method.
	KnockMethod string
	// Extensions are the frame's, as they came.
	Extensions []byte
}

// wrappers is how many wrappers PeerOf looks beneath.
const wrappers = 16

// PeerOf says who opened a connection: one that came from Accept of a [Listener]
// or from [Server.Auth], or a wrapper around one that has a method NetConn, as
// *tls.Conn, or Unwrap. It returns false for all others.
func PeerOf(c net.Conn) (Peer, bool) {
	for range wrappers {
		if known, ok := c.(interface{ knockPeer() *Peer }); ok {
			if peer := known.knockPeer(); peer != nil {
				return *peer, true
			}
		}
		if peer := bare.peerOf(c); peer != nil {
			return *peer, true
		}
		switch w := c.(type) {
		case interface{ NetConn() net.Conn }:
			c = w.NetConn()
		case interface{ Unwrap() net.Conn }:
			c = w.Unwrap()
		default:
			return Peer{}, false
		}
	}
	return Peer{}, false
}

// authentic returns raw itself if no byte was read ahead and its peer can be kept
// apart from it, otherwise a wrapper.
func authentic(raw net.Conn, peer *Peer, head []byte) net.Conn {
	if len(head) == 0 && bare.put(raw, peer) {
		return raw
	}
	return newConn(raw, head, peer, nil)
}

// bare knows the peers of connections that were handed back without a wrapper.
var bare bareConns

// bareConns finds peers by their connections and keeps none of those alive: an
// entry goes when the program has forgotten the connection.
type bareConns struct{ peers sync.Map } // of *Peer by weak.Pointer to the connection

// put keeps the peer of a connection; it reports false for a type of connection
// that it does not know.
func (b *bareConns) put(c net.Conn, peer *Peer) bool {
	switch c := c.(type) {
	case *net.TCPConn:
		putWeak(b, c, peer)
	case *net.UnixConn:
		putWeak(b, c, peer)
	case *tls.Conn:
		putWeak(b, c, peer)
	default:
		return false
	}
	return true
}

func putWeak[T any](b *bareConns, c *T, peer *Peer) {
	key := weak.Make(c)
	b.peers.Store(key, peer)
	runtime.AddCleanup(c, func(key weak.Pointer[T]) { b.peers.Delete(key) }, key)
}

// peerOf finds the peer of a connection, nil if it is not known.
func (b *bareConns) peerOf(c net.Conn) *Peer {
	var key any
	switch c := c.(type) {
	case *net.TCPConn:
		key = weak.Make(c)
	case *net.UnixConn:
		key = weak.Make(c)
	case *tls.Conn:
		key = weak.Make(c)
	default:
		return nil
	}
	peer, _ := b.peers.Load(key)
	p, _ := peer.(*Peer)
	return p
}
