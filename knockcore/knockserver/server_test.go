// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// authenticated is what Auth makes of a connection with these first bytes.
func authenticated(t *testing.T, s *knockserver.Server, ln net.Listener, head []byte) (peer *net.TCPConn, raw, conn net.Conn, err error) {
	t.Helper()
	peer = dial(t, ln)
	raw = accept(t, ln)
	if _, err := peer.Write(head); err != nil {
		t.Fatal(err)
	}
	conn, err = s.Auth(t.Context(), raw)
	return peer, raw, conn, err
}

func server(t *testing.T, cfg knockserver.Config) *knockserver.Server {
	t.Helper()
	if cfg.Clients == nil {
		cfg.Clients = clients(t, "alice")
	}
	s, err := knockserver.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestAuth(t *testing.T) {
	ln, s := listen(t), server(t, knockserver.Config{})
	extended := func(f *wire.TCPFrame) {
		f.Bucket, f.KnockMethod, f.Session, f.Extensions = 256, "free text", []byte("sixteen bytes ..."), []byte{1, 0, 1, 7}
	}
	check := func(t *testing.T, conn net.Conn) {
		t.Helper()
		peer, ok := knockserver.PeerOf(conn)
		if !ok || peer.Grant.Client != "alice" || peer.Grant.Method != knockcore.MethodEnvelopeV2 || !peer.Grant.Source.IsLoopback() ||
			string(peer.Grant.Session) != "sixteen bytes ..." || len(peer.Extensions) != 4 || peer.KnockMethod != "free text" ||
			time.Since(peer.Time) > time.Minute {
			t.Errorf("the peer is %+v, %v", peer, ok)
		}
	}
	t.Run("nothing behind the frame", func(t *testing.T) {
		_, raw, conn, err := authenticated(t, s, ln, frame(t, port(ln), extended))
		if err != nil {
			t.Fatal(err)
		}
		if conn != raw {
			t.Errorf("got a %T, expected the connection itself", conn)
		}
		check(t, conn)
	})
	t.Run("something behind the frame", func(t *testing.T) {
		peer, raw, conn, err := authenticated(t, s, ln, append(frame(t, port(ln), extended), "payload"...))
		if err != nil {
			t.Fatal(err)
		}
		check(t, conn)
		if n, ok := conn.(interface{ NetConn() net.Conn }); !ok || n.NetConn() != raw {
			t.Error("the connection beneath can't be reached")
		}
		_ = peer.CloseWrite()
		if got := closed(t, conn); got != "payload" {
			t.Errorf("got %q", got)
		}
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
		if got := closed(t, peer); got != "" {
			t.Errorf("the client got %q", got)
		}
		// The other half is closed, the connection is not.
		if err := conn.SetDeadline(time.Time{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("through wrappers", func(t *testing.T) {
		_, _, conn, err := authenticated(t, s, ln, frame(t, port(ln), extended))
		if err != nil {
			t.Fatal(err)
		}
		check(t, tls.Server(conn, new(tls.Config)))
		check(t, unwrapper{tls.Server(conn, new(tls.Config))})
	})
	t.Run("a stranger", func(t *testing.T) {
		peer, raw, conn, err := authenticated(t, s, ln, []byte("GET / HTTP/1.1\r\n\r\n"))
		if conn != nil || !errors.Is(err, knockcore.ReasonUnknownClient) {
			t.Errorf("got %v, %v", conn, err)
		}
		if _, ok := knockserver.PeerOf(raw); ok {
			t.Error("it is somebody")
		}
		closed(t, peer)
	})
}

// unwrapper is a wrapper of another kind.
type unwrapper struct{ net.Conn }

func (u unwrapper) Unwrap() net.Conn { return u.Conn }

func TestAuthEndsWithItsContext(t *testing.T) {
	ln, s := listen(t), server(t, knockserver.Config{Wait: time.Hour})
	before := runtime.NumGoroutine()
	peer := dial(t, ln)
	raw := accept(t, ln)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Auth(ctx, raw)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || !errors.Is(err, knockcore.ReasonMalformed) {
		t.Errorf("got %v", err)
	}
	closed(t, peer)
	noneLeft(t, before)
}

func TestPolicy(t *testing.T) {
	var seen events
	ln, s := listen(t), server(t, knockserver.Config{
		Policy:    func(net.Addr) bool { return false },
		Observer:  seen.observe,
		OnRefused: func(net.Conn, error) { t.Error("the cover was asked") },
	})
	peer, _, _, err := authenticated(t, s, ln, frame(t, port(ln), nil))
	if !errors.Is(err, knockcore.ReasonLimited) || seen.count(knockcore.EventRefused, knockcore.ReasonLimited) != 1 {
		t.Errorf("got %v", err)
	}
	closed(t, peer)
}

// TestRemovedClientsAreCut changes the clients while they are connected.
func TestRemovedClientsAreCut(t *testing.T) {
	list := clients(t, "alice", "bob")
	ln := guarded(t, knockserver.Config{Clients: list})
	go serveEcho(ln)
	alice, bob := knock(t, ln, "alice"), knock(t, ln, "bob")
	echoes(t, alice, "alice is in")
	echoes(t, bob, "bob is in")
	if err := list.Set(client("bob"), client("carol")); err != nil {
		t.Fatal(err)
	}
	if got := closed(t, alice); got != "" {
		t.Errorf("alice got %q", got)
	}
	echoes(t, bob, "bob is still in")
	echoes(t, knock(t, ln, "carol"), "carol is in")
	if err := list.Set(&knockcore.Client{ID: "weak", Secrets: []knockcore.Secret{knockcore.NewSecret([]byte("short"))}}); err == nil {
		t.Error("a weak secret was accepted")
	}
	echoes(t, bob, "an error changes nothing")
}

// resolver is a Resolver that can't be watched.
type resolver struct {
	ring atomic.Pointer[knockcore.Keyring]
}

func (r *resolver) Keyring() *knockcore.Keyring { return r.ring.Load() }

func TestResolverIsAskedForEachConnection(t *testing.T) {
	r := new(resolver)
	ln := guarded(t, knockserver.Config{Clients: r}) // nobody yet
	go serveEcho(ln)
	r.ring.Store(clients(t, "alice").Keyring())
	alice := knock(t, ln, "alice")
	echoes(t, alice, "alice is in")
	r.ring.Store(clients(t, "bob").Keyring())
	echoes(t, knock(t, ln, "bob"), "bob is in")
	closed(t, alice)
}

func TestServices(t *testing.T) {
	reaches := func(service string, listed ...string) bool {
		c := client("alice")
		c.Services = listed
		list, err := knockserver.NewClients(c)
		if err != nil {
			t.Fatal(err)
		}
		ln, s := listen(t), server(t, knockserver.Config{Clients: list, Service: service})
		_, _, conn, err := authenticated(t, s, ln, frame(t, port(ln), nil))
		if err != nil && !errors.Is(err, knockcore.ReasonForbidden) {
			t.Fatal(err)
		}
		if err == nil {
			if peer, _ := knockserver.PeerOf(conn); service != "" && peer.Grant.Service != service {
				t.Errorf("the service is %q", peer.Grant.Service)
			}
		}
		return err == nil
	}
	if !reaches("", "elsewhere") || !reaches("") {
		t.Error("without a service, a client did not get in")
	}
	if !reaches("db", "web", "db") || reaches("db", "web") || reaches("db") {
		t.Error("the list of services does not decide")
	}
}

func TestSessions(t *testing.T) {
	s := server(t, knockserver.Config{RequireSession: true, SessionWait: -1})
	ln := listen(t)
	session := []byte("a session of 16+ bytes")
	attempt := func() error {
		_, _, _, err := authenticated(t, s, ln, frame(t, port(ln), func(f *wire.TCPFrame) { f.Session = session }))
		return err
	}
	if err := attempt(); !errors.Is(err, knockcore.ReasonNoSession) {
		t.Errorf("without a knock: %v", err)
	}
	gate := s.Gatekeeper()
	_, err := gate.Admit(t.Context(), knockcore.Knock{
		Client: gate.Keyring().Client("alice"), Method: knockcore.MethodUDP, Session: session, Time: time.Now(),
		Source: knockserver.AddrPortOf(ln.Addr()).Addr(), Replay: knockcore.NewReplayKey(knockcore.ReplayUDP, "alice", []byte("nonce")),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := attempt(); err != nil {
		t.Errorf("behind a knock: %v", err)
	}
	if err := attempt(); !errors.Is(err, knockcore.ReasonNoSession) {
		t.Errorf("a second time: %v", err)
	}
}

func TestServerProof(t *testing.T) {
	ln := guarded(t, knockserver.Config{})
	go serveEcho(ln)
	d := knockclient.Dialer{Config: knockclient.Config{ClientID: "alice", Secret: secretOf("alice"), ServerProof: true}}
	conn, err := d.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echoes(t, conn, "proved")
}

func TestRevoke(t *testing.T) {
	s := server(t, knockserver.Config{})
	ln, err := s.Listen(listen(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	conn := knock(t, ln, "alice")
	peer, ok := knockserver.PeerOf(accept(t, ln))
	if !ok {
		t.Fatal("nobody knows the peer")
	}
	if live := s.Gatekeeper().State().Len(); live != 1 {
		t.Errorf("%d grants are live", live)
	}
	if ok, err := s.Gatekeeper().Revoke(t.Context(), peer.Grant.ID, "test"); !ok || err != nil {
		t.Errorf("revoking: %v, %v", ok, err)
	}
	closed(t, conn)
	again := knock(t, ln, "alice")
	_ = accept(t, ln).Close()
	closed(t, again)
	if live := s.Gatekeeper().State().Len(); live != 0 {
		t.Errorf("%d grants are live", live)
	}
}

func TestConfigErrors(t *testing.T) {
	list := clients(t, "alice")
	for want, cfg := range map[string]knockserver.Config{
		"set Clients":                   {},
		"checking the service":          {Clients: list, Service: "two words"},
		"Wait is -1s":                   {Clients: list, Wait: -time.Second},
		"TimeWindow is -1s":             {Clients: list, TimeWindow: -time.Second},
		"MaxPending is -1":              {Clients: list, MaxPending: -1},
		"MaxStrangers is -1":            {Clients: list, MaxStrangers: -1},
		"no method of TCP frames":       {Clients: list, Methods: knockcore.NewMethodSet(knockcore.MethodUDP)},
		"no envelope has 100 bytes":     {Clients: list, Buckets: []int{100}},
		"more than 4":                   {Clients: list, HintNone: true, MaxAttempts: 4},
		"no port that frames could nam": {Clients: list},
	} {
		ln := listen(t)
		if strings.HasPrefix(want, "no port") {
			ln = portless{ln}
		}
		if _, err := knockserver.NewListener(ln, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("expected %q, got %v", want, err)
		}
	}
}

// portless is a listener on an address without a port.
type portless struct{ net.Listener }

func (portless) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "/run/service"} }

func TestClosedServer(t *testing.T) {
	ln, s := listen(t), server(t, knockserver.Config{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	peer, _, _, err := authenticated(t, s, ln, frame(t, port(ln), nil))
	if !errors.Is(err, knockserver.ErrServerClosed) {
		t.Errorf("got %v", err)
	}
	_, _ = io.Copy(io.Discard, peer)
}
