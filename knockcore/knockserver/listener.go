// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver

import (
	"context"
	"net"
	"sync"
	"time"
)

// maxWaiting is how many admitted connections may wait for Accept; then no more
// are taken from the system, whose own queue fills.
const maxWaiting = 256

// Listener is a net.Listener whose Accept returns only connections that a
// [Guard] lets in. Make one with [Guard.Listen] or [Server.Listen].
type Listener struct {
	net.Listener
	guard     *Guard
	strangers chan struct{}
	start     sync.Once
	closing   chan struct{}
	ctx       context.Context // of the streams
	cancel    context.CancelFunc

	mu      sync.Mutex
	changed sync.Cond
	waiting []net.Conn // admitted
	closed  bool
	err     error // of the listener beneath, final
}

// Listen puts the guard in front of a listener. Nothing happens before the first
// Accept; then a goroutine takes connections, and each has one of its own until
// it is decided, or as long as a stranger is with the cover.
func (g *Guard) Listen(ln net.Listener) *Listener {
	strangers := g.MaxStrangers
	if strangers <= 0 {
		strangers = DefaultPending()
	}
	l := &Listener{Listener: ln, guard: g, strangers: make(chan struct{}, strangers), closing: make(chan struct{})}
	l.ctx, l.cancel = context.Background(), func() {}
	if g.Late == nil {
		l.ctx, l.cancel = context.WithCancel(l.ctx)
	}
	l.changed.L = &l.mu
	return l
}

// Accept returns the next connection that was let in.
func (l *Listener) Accept() (net.Conn, error) {
	l.start.Do(func() { go l.run() })
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.closed:
			addr := l.Addr()
			return nil, &net.OpError{Op: "accept", Net: addr.Network(), Addr: addr, Err: net.ErrClosed}
		case len(l.waiting) > 0:
			conn := l.waiting[0]
			l.waiting[0] = nil
			l.waiting = l.waiting[1:]
			l.changed.Broadcast()
			return conn, nil
		case l.err != nil:
			return nil, l.err
		}
		l.changed.Wait()
	}
}

// Offer hands in a connection that was let in elsewhere, for Accept to return. It
// reports false if the listener is closed.
func (l *Listener) Offer(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.waiting = append(l.waiting, conn)
	l.changed.Broadcast()
	return true
}

// Close closes the listener. Connections that nobody has accepted are closed,
// undecided streams too, and strangers lose their cover's ctx; for what differs
// with Guard.Late, see there.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	rest := l.waiting
	l.waiting = nil
	l.changed.Broadcast()
	l.mu.Unlock()
	close(l.closing)
	l.cancel()
	err := l.Listener.Close()
	for _, conn := range rest {
		l.late(conn)
	}
	return err
}

func (l *Listener) late(conn net.Conn) {
	if l.guard.Late == nil || !l.guard.Late(conn) {
		_ = conn.Close()
	}
}

// room waits until another connection may be taken; false means that the
// listener is closed.
func (l *Listener) room() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) >= maxWaiting && !l.closed {
		l.changed.Wait()
	}
	return !l.closed
}

// The pause after an error of Accept, doubled while they go on.
const (
	leastPause = 5 * time.Millisecond
	mostPause  = time.Second
)

// run takes connections until the listener is closed or fails for good.
func (l *Listener) run() {
	var pause time.Duration
	for l.room() {
		raw, err := l.Listener.Accept()
		if err == nil {
			pause = 0
			go l.handle(raw)
			continue
		}
		select {
		case <-l.closing:
			return
		default:
		}
		if !temporary(err) {
			l.mu.Lock()
			l.err = err
			l.changed.Broadcast()
			l.mu.Unlock()
			return
		}
		if l.guard.Failed != nil {
			l.guard.Failed(err)
		}
		pause = min(max(2*pause, leastPause), mostPause)
		if outOfFiles(err) && l.guard.Checker.Pending.evict() {
			pause = leastPause // one file more
		}
		select {
		case <-time.After(pause):
		case <-l.closing:
			return
		}
	}
}

// handle decides on a connection and sends it where it belongs.
func (l *Listener) handle(raw net.Conn) {
	cover := l.cover()
	gate, result := l.guard.admit(l.ctx, raw)
	if result.Peer == nil {
		l.stranger(cover, raw, result)
		return
	}
	cover.Drop()
	release := track(gate, result.Peer.Grant, raw)
	if conn := newConn(raw, result.Rest, result.Peer, release); !l.Offer(conn) {
		l.late(conn)
	}
}

func (l *Listener) cover() Cover {
	if l.guard.Cover != nil {
		return l.guard.Cover(l.ctx)
	}
	return silence{l.ctx, time.Now().Add(l.guard.Checker.wait())}
}

// stranger gives a connection to the cover, if that is what it should get and
// there is room.
func (l *Listener) stranger(cover Cover, raw net.Conn, result Result) {
	_, silent := cover.(silence)
	if !result.barred && !(silent && result.evicted) && l.ctx.Err() == nil {
		select {
		case l.strangers <- struct{}{}:
			defer func() { <-l.strangers }()
			cover.Serve(raw, result.Rest, result.Err)
			return
		default:
		}
	}
	cover.Drop()
	_ = raw.Close()
}

// Interface guards
var _ net.Listener = (*Listener)(nil)
