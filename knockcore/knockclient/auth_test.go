// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient/clienttest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

var testSecret = knockcore.NewSecret([]byte("a secret of alice's, long enough"))

func testConfig() knockclient.Config {
	return knockclient.Config{ClientID: "alice", Secret: testSecret}
}

// echo returns what it is sent, until the client has said all.
func echo(conn clienttest.Conn, _ *wire.TCPFrame) {
	_, _ = io.Copy(conn, conn)
	_ = conn.CloseWrite()
}

func startServer(tb testing.TB, s *clienttest.Server) *clienttest.Server {
	tb.Helper()
	s.Client, s.Secret = "alice", testSecret
	if s.Serve == nil {
		s.Serve = echo
	}
	s.Start(tb)
	return s
}

// roundTrip sends a request, half-closes, and returns the whole answer.
func roundTrip(tb testing.TB, conn net.Conn, request string) string {
	tb.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		tb.Fatal("Sending the request:", err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		tb.Fatal("Half-closing:", err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		tb.Fatal("Reading the answer:", err)
	}
	return string(answer)
}

func TestAuth(t *testing.T) {
	tests := map[string]struct {
		server clienttest.Server
		change func(*knockclient.Config)
	}{
		"default":        {},
		"v1":             {change: func(c *knockclient.Config) { c.Method = knockcore.MethodFrameV1 }},
		"v1 with proof":  {change: func(c *knockclient.Config) { c.Method, c.ServerProof = knockcore.MethodFrameV1, true }},
		"v2 with proof":  {change: func(c *knockclient.Config) { c.ServerProof = true }},
		"v2 hint none":   {clienttest.Server{HintNone: true}, func(c *knockclient.Config) { c.HintNone, c.ServerProof = true, true }},
		"zero padding":   {change: func(c *knockclient.Config) { c.ZeroPadding = true }},
		"protected port": {clienttest.Server{Port: 22}, func(c *knockclient.Config) { c.Port = 22 }},
		"no timeout":     {change: func(c *knockclient.Config) { c.Timeout, c.ServerProof = -1, true }},
		"all fields": {change: func(c *knockclient.Config) {
			c.Session, c.Extensions, c.KnockMethod = []byte("0123456789abcdef"), []byte{0, 1, 0, 0}, "udp"
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, cfg := startServer(t, &test.server), testConfig()
			cfg.Now = func() time.Time { return time.Now().Add(-20 * time.Second) }
			if test.change != nil {
				test.change(&cfg)
			}
			conn, err := net.Dial("tcp", server.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := knockclient.Auth(t.Context(), conn, cfg); err != nil {
				t.Fatal(err)
			}
			if got := roundTrip(t, conn, "hello"); got != "hello" {
				t.Errorf("Got %q, want the echo", got)
			}
			frames := server.Frames()
			if len(frames) != 1 {
				t.Fatalf("Got %d frames, want 1", len(frames))
			}
			f := frames[0]
			if f.Port != server.Port || f.WantProof != cfg.ServerProof || f.KnockMethod != cfg.KnockMethod ||
				!bytes.Equal(f.Session, cfg.Session) || !bytes.Equal(f.Extensions, cfg.Extensions) {
				t.Errorf("Got frame %+v, want what the configuration says", f)
			}
			if age := time.Since(time.UnixMilli(f.Time)); age < 20*time.Second {
				t.Errorf("Frame is %v old, want the configuration's clock", age)
			}
		})
	}
}

func TestAuthProof(t *testing.T) {
	tests := map[string]struct {
		server clienttest.Server
		change func(*knockclient.Config)
		want   error
		text   string
	}{
		"wrong":  {server: clienttest.Server{Answer: clienttest.ProveWrongly}, want: knockclient.ErrWrongProof, text: "another secret"},
		"short":  {server: clienttest.Server{Answer: clienttest.ProveShortly}, want: knockclient.ErrNoProof, text: "only 25 of 50 bytes"},
		"closed": {server: clienttest.Server{Answer: clienttest.Close}, want: knockclient.ErrNoProof, text: "closed"},
		"cover that waits": {
			server: clienttest.Server{Cover: func(conn clienttest.Conn) {
				_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.6\r\n")
				_, _ = io.Copy(io.Discard, conn)
			}},
			change: func(c *knockclient.Config) { c.Secret, c.Timeout = knockcore.NewSecret(make([]byte, 32)), -1 },
			want:   knockclient.ErrWrongProof, text: `"SSH-2.0-OpenSSH_"`,
		},
		"wrong secret": {
			change: func(c *knockclient.Config) { c.Secret = knockcore.NewSecret(make([]byte, 32)) },
			want:   knockclient.ErrNoProof,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, cfg := startServer(t, &test.server), testConfig()
			cfg.ServerProof = true
			if test.change != nil {
				test.change(&cfg)
			}
			conn, err := net.Dial("tcp", server.Addr())
			if err != nil {
				t.Fatal(err)
			}
			err = knockclient.Auth(t.Context(), conn, cfg)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("Got error %v, want %v with %q", err, test.want, test.text)
			}
			if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Got %v from the connection, want it closed", err)
			}
		})
	}
}

// plainConn counts deadlines; with noDeadlines it has none, as channels of SSH.
type plainConn struct {
	net.Conn
	noDeadlines bool
	deadlines   int
}

func (c *plainConn) SetDeadline(t time.Time) error {
	c.deadlines++
	if c.noDeadlines {
		return errors.New("deadlines are not supported")
	}
	return c.Conn.SetDeadline(t)
}

func TestAuthSilentServer(t *testing.T) {
	canceled := errors.New("changed my mind")
	tests := map[string]struct {
		noDeadlines, deaf bool
		ctx               func(context.Context) (context.Context, context.CancelFunc)
		want              error
		after             time.Duration
	}{
		"timeout":           {want: context.DeadlineExceeded, after: knockclient.DefaultTimeout},
		"without deadlines": {noDeadlines: true, want: context.DeadlineExceeded, after: knockclient.DefaultTimeout},
		"not even reading":  {deaf: true, want: context.DeadlineExceeded, after: knockclient.DefaultTimeout},
		"deadline of the context": {
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Second)
			},
			want: context.DeadlineExceeded, after: time.Second,
		},
		"cancelled": {
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancelCause(ctx)
				time.AfterFunc(2*time.Second, func() { cancel(canceled) })
				return ctx, func() { cancel(nil) }
			},
			want: canceled, after: 2 * time.Second,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.ctx != nil {
					var cancel context.CancelFunc
					ctx, cancel = test.ctx(ctx)
					defer cancel()
				}
				client, server := net.Pipe()
				defer server.Close()
				if !test.deaf {
					go func() { _, _ = io.Copy(io.Discard, server) }()
				}
				cfg := testConfig()
				cfg.ServerProof, cfg.Port = true, 22
				start := time.Now()
				err := knockclient.Auth(ctx, &plainConn{Conn: client, noDeadlines: test.noDeadlines}, cfg)
				if !errors.Is(err, test.want) || time.Since(start) != test.after {
					t.Errorf("Got %v after %v, want %v after %v", err, time.Since(start), test.want, test.after)
				}
				if errors.Is(err, knockclient.ErrNoProof) == test.deaf {
					t.Errorf("Got %v, want ErrNoProof only if the frame was sent", err)
				}
				if _, err := client.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("Got %v from the connection, want it closed", err)
				}
			})
		})
	}
}

func TestAuthLeavesNoDeadline(t *testing.T) {
	server := startServer(t, new(clienttest.Server))
	tcp, err := net.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	conn := &plainConn{Conn: tcp}
	ctx, cancel := context.WithCancel(t.Context())
	cfg := testConfig()
	cfg.ServerProof = true
	if err := knockclient.Auth(ctx, conn, cfg); err != nil {
		t.Fatal(err)
	}
	cancel() // afterwards, the context has no power over the connection
	if got := roundTrip(t, tcp, "hello"); got != "hello" || conn.deadlines != 0 {
		t.Errorf("Got %q and %d deadlines, want the echo and none", got, conn.deadlines)
	}
}

func TestAuthCancelledBefore(t *testing.T) {
	server := startServer(t, new(clienttest.Server))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	conn, err := net.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := knockclient.Auth(ctx, conn, testConfig()); !errors.Is(err, context.Canceled) {
		t.Errorf("Got %v, want the context's error", err)
	}
}

func TestConfigValidate(t *testing.T) {
	tests := map[string]struct {
		change func(*knockclient.Config)
		want   string // "" means valid
	}{
		"default":      {func(*knockclient.Config) {}, ""},
		"no client":    {func(c *knockclient.Config) { c.ClientID = "" }, "checking the client ID"},
		"no secret":    {func(c *knockclient.Config) { c.Secret = knockcore.Secret{} }, "has 0 bytes"},
		"short secret": {func(c *knockclient.Config) { c.Secret = knockcore.NewSecret([]byte("hunter2hunter2!")) }, "has 15 bytes"},
		"method":       {func(c *knockclient.Config) { c.Method = knockcore.MethodUDP }, "no method of TCP frames"},
		"hint":         {func(c *knockclient.Config) { c.Method, c.HintNone = knockcore.MethodFrameV1, true }, "always has a hint"},
		"long session": {func(c *knockclient.Config) { c.Session = make([]byte, 256) }, "session has 256 bytes"},
		"extensions": {
			func(c *knockclient.Config) { c.Extensions = make([]byte, 431) },
			"making the frame: method, session and extensions are 1 bytes too long",
		},
		"full": {func(c *knockclient.Config) { c.Extensions = make([]byte, 430) }, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig()
			test.change(&cfg)
			err := cfg.Validate()
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("Got %v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Error %q tells the secret", err)
			}
		})
	}
}
