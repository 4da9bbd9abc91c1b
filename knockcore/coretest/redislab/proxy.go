// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redislab

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy stands between a server and its clients.
type Proxy struct {
	Address string
	// Bytes counts what went through, both ways; Writes is how many pieces.
	Bytes, Writes atomic.Int64

	ln     net.Listener
	target string
	delay  atomic.Int64
	block  atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// NewProxy runs a proxy until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Address: ln.Addr().String(), ln: ln, target: target, conns: make(map[net.Conn]struct{})}
	go p.accept()
	t.Cleanup(func() {
		_ = ln.Close()
		p.Cut()
	})
	return p
}

// Delay delays each piece of data, either way, by half of d: an answer comes d
// later.
func (p *Proxy) Delay(d time.Duration) { p.delay.Store(int64(d / 2)) }

// Block swallows all data from now on, as a network does that is cut in two;
// connections stay. Unblock lets new connections work again and ends the old ones.
func (p *Proxy) Block() { p.block.Store(true) }

// Unblock ends Block.
func (p *Proxy) Unblock() {
	p.block.Store(false)
	p.Cut()
}

// Cut ends all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		go p.serve(c)
	}
}

func (p *Proxy) serve(c net.Conn) {
	p.track(c, true)
	defer p.track(c, false)
	s, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	p.track(s, true)
	defer p.track(s, false)
	go func() {
		p.copy(s, c)
		_ = s.Close()
		_ = c.Close()
	}()
	p.copy(c, s)
}

func (p *Proxy) track(c net.Conn, add bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if add {
		p.conns[c] = struct{}{}
		return
	}
	delete(p.conns, c)
	_ = c.Close()
}

type piece struct {
	data []byte
	due  time.Time
}

// copy keeps the order and the delay of each piece.
func (p *Proxy) copy(to io.Writer, from io.Reader) {
	pieces := make(chan piece, 1024)
	defer close(pieces)
	go func() {
		for piece := range pieces {
			time.Sleep(time.Until(piece.due))
			if p.block.Load() {
				continue
			}
			p.Bytes.Add(int64(len(piece.data)))
			p.Writes.Add(1)
			_, _ = to.Write(piece.data)
		}
	}()
	for {
		buf := make([]byte, 1<<16)
		n, err := from.Read(buf)
		if n > 0 {
			pieces <- piece{buf[:n], time.Now().Add(time.Duration(p.delay.Load()))}
		}
		if err != nil {
			return
		}
	}
}
