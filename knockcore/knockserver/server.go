// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// ErrServerClosed is what a closed Server answers with.
var ErrServerClosed = errors.New("the knock server is closed")

// Server lets connections in by the frames at their heads. It is safe for
// concurrent use.
type Server struct {
	cfg    Config
	guard  Guard
	gate   *knockcore.Gatekeeper
	own    knockcore.Store // to be closed; nil if it is the caller's
	stop   func()
	closed atomic.Bool

	mu   sync.Mutex                        // of changes of
	ring atomic.Pointer[knockcore.Keyring] // what Clients gave last
}

// NewServer checks the configuration and makes a server. Close it when it is done
// with, if its Clients or Store live on.
func NewServer(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configuring a knock server: %w", err)
	}
	s := &Server{cfg: cfg, stop: func() {}}
	if cfg.Store == nil {
		s.own = knockcore.NewMemoryStore(0)
		s.cfg.Store = s.own
	}
	if err := s.init(); err != nil {
		return nil, errors.Join(fmt.Errorf("configuring a knock server: %w", err), s.Close())
	}
	return s, nil
}

func (s *Server) init() error {
	given := s.cfg.Clients.Keyring()
	s.ring.Store(given)
	ring, err := forService(given, s.cfg.Service)
	if err != nil {
		return err
	}
	if s.gate, err = s.cfg.gatekeeper(ring); err != nil {
		return err
	}
	s.gate.Activate(context.Background())
	s.guard = Guard{Gatekeeper: s.current, Policy: s.cfg.Policy, MaxStrangers: s.cfg.MaxStrangers}
	if s.guard.Checker, err = s.cfg.checker(s.gate); err != nil {
		return err
	}
	if s.cfg.OnRefused != nil {
		s.guard.Cover = func(ctx context.Context) Cover { return refused{ctx, s.cfg.OnRefused} }
	}
	if w, ok := s.cfg.Clients.(Watcher); ok {
		s.stop = w.Watch(func() { _, _ = s.current(context.Background()) })
		_, err = s.current(context.Background()) // for a change in between
	}
	return err
}

// Gatekeeper is what decides, for those who want to list or revoke grants, or to
// hand in knocks that sessions begin with. A connection that was accepted is a
// grant until it is closed: revoking it closes the connection.
func (s *Server) Gatekeeper() *knockcore.Gatekeeper { return s.gate }

// Close ends the server: Auth and its listeners let nobody in any more.
// Connections that were accepted stay, but are no longer closed when their client
// is removed.
func (s *Server) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.stop()
	if s.own != nil {
		return s.own.Close()
	}
	return nil
}

// current returns the gatekeeper with the clients as they are now.
func (s *Server) current(ctx context.Context) (*knockcore.Gatekeeper, error) {
	if s.closed.Load() {
		return nil, ErrServerClosed
	}
	if s.cfg.RequireSession {
		s.gate.Sweep(ctx) // sessions that are over make room for new ones
	}
	if s.cfg.Clients.Keyring() == s.ring.Load() {
		return s.gate, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	given := s.cfg.Clients.Keyring()
	ring, err := forService(given, s.cfg.Service)
	if err != nil {
		return nil, err
	}
	if _, err := s.gate.SetKeyring(context.WithoutCancel(ctx), ring); err != nil {
		return nil, err
	}
	s.ring.Store(given)
	return s.gate, nil
}

// Auth reads the frame at the head of a connection and lets it in, or not. It
// takes as long as the peer needs, at most Config.Wait, and ends with ctx; a read
// deadline of the caller's is cleared.
//
// The connection returned reads on behind the frame and has a CloseWrite if conn
// has one. Unless bytes from behind the frame have arrived already, it is conn
// itself if that is a *net.TCPConn, *net.UnixConn or *tls.Conn. PeerOf knows who
// it is. What becomes of it is the caller's business: to have it closed when its
// client is removed, see knockcore.State.Track.
//
// On an error, which wraps a knockcore.Reason, the connection is no longer the
// caller's: it was closed, or given to Config.OnRefused, which has returned.
func (s *Server) Auth(ctx context.Context, conn net.Conn) (net.Conn, error) {
	_, result := s.guard.admit(ctx, conn)
	if result.Peer != nil {
		return authentic(conn, result.Peer, result.Rest), nil
	}
	err := fmt.Errorf("authenticating %v: %w", conn.RemoteAddr(), result.Err)
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	if s.cfg.OnRefused == nil || result.barred {
		_ = conn.Close()
	} else {
		s.cfg.OnRefused(WithHead(conn, result.Rest), err)
	}
	return nil, err
}

// Listen puts the server in front of a listener. Connections from its Accept are
// closed when their client is removed, and PeerOf knows who they are. Closing it
// closes ln, but not the server.
func (s *Server) Listen(ln net.Listener) (*Listener, error) {
	if s.cfg.Port == 0 && AddrPortOf(ln.Addr()).Port() == 0 {
		return nil, fmt.Errorf("listening on %v: the address has no port that frames could name; set Config.Port", ln.Addr())
	}
	return s.guard.Listen(ln), nil
}

// NewListener checks the configuration and puts a server in front of a listener:
// see [Server.Listen]. Closing it closes ln, and the server with it.
func NewListener(ln net.Listener, cfg Config) (net.Listener, error) {
	s, err := NewServer(cfg)
	if err != nil {
		return nil, err
	}
	guarded, err := s.Listen(ln)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &ownListener{guarded, s}, nil
}

// ownListener is a listener with a server of its own.
type ownListener struct {
	*Listener
	server *Server
}

// Close closes the listener and its server.
func (l *ownListener) Close() error { return errors.Join(l.Listener.Close(), l.server.Close()) }

// refused is the cover that Config.OnRefused is.
type refused struct {
	ctx       context.Context
	onRefused func(net.Conn, error)
}

// Serve hands the connection over.
func (r refused) Serve(conn net.Conn, head []byte, err error) {
	defer context.AfterFunc(r.ctx, func() { _ = conn.Close() })()
	r.onRefused(WithHead(conn, head), err)
}

// Drop does nothing.
func (refused) Drop() {}
