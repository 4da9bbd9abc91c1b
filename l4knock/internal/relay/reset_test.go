// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// reset closes c so that its peer sees a reset.
func reset(c half) {
	tcp := c.(*net.TCPConn)
	_ = tcp.SetLinger(0)
	tcp.Close()
}

// TestReset: a reset on either side, idle or in mid-flight, is a reset on the other
// side: never an orderly end.
func TestReset(t *testing.T) {
	for _, side := range []string{"client", "server"} {
		for _, busy := range []string{"idle", "receiving", "sending", "both"} {
			t.Run(side+"/"+busy, func(t *testing.T) {
				t.Parallel()
				for i := range 20 {
					g := start(t, "tcp", "tcp", &Options{})
					bad, good, cause := g.client, g.server, CauseDown
					if side == "server" {
						bad, good, cause = good, bad, CauseUp
					}
					mustWrite(t, bad, "ping")
					mustRead(t, good, "ping")
					written := make(chan error, 1)
					go func() {
						var err error
						if busy == "receiving" || busy == "both" {
							_, err = io.CopyN(good, zeros{}, 1<<30)
						}
						written <- err
					}()
					go func() {
						if busy == "sending" || busy == "both" {
							_, _ = io.CopyN(bad, zeros{}, 1<<30)
						}
					}()
					if busy == "receiving" || busy == "both" {
						if _, err := io.CopyN(io.Discard, bad, int64(i)<<18); err != nil {
							t.Fatal(err)
						}
					}
					reset(bad)
					_, err := io.Copy(io.Discard, struct{ io.Reader }{good})
					mustBeReset(t, err, <-written)
					if s := g.wait(t); s.Cause != cause || !gone(s.Err) {
						t.Fatalf("round %d: stats %+v", i, s)
					}
				}
			})
		}
	}
}

// mustBeReset looks at what a socket's reader and writer got. The kernel tells only
// one of them about a reset. One that came after an orderly end would be EPIPE.
func mustBeReset(t *testing.T, readErr, writeErr error) {
	t.Helper()
	if !errors.Is(readErr, syscall.ECONNRESET) && !errors.Is(writeErr, syscall.ECONNRESET) {
		t.Fatalf("the reader got %v and the writer %v, want a reset", readErr, writeErr)
	}
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestEarlyAnswer: a server that answers and goes away in the middle of a request
// resets the connection. The client still gets the answer, as it would without us.
func TestEarlyAnswer(t *testing.T) {
	answer := bytes.Repeat([]byte("go away "), 1<<10)
	for i := range 20 {
		g := newRig(t, "tcp", "tcp", "", &Options{})
		g.setBuffers(t, 64<<10)
		g.run(t, t.Context())
		block(t, g.client)
		written := make(chan error, 1)
		go func() {
			_, err := io.CopyN(g.client, zeros{}, 1<<30)
			written <- err
		}()
		if _, err := io.CopyN(io.Discard, g.server, int64(i+1)<<10); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, g.server, string(answer))
		g.server.Close() // with bytes unread: a reset
		got, err := io.ReadAll(g.client)
		mustBeReset(t, err, <-written)
		if !bytes.Equal(got, answer) {
			t.Fatalf("round %d: got %d bytes of %d, %v", i, len(got), len(answer), err)
		}
		if s := g.wait(t); s.Cause != CauseUp {
			t.Fatalf("round %d: stats %+v", i, s)
		}
	}
}

// TestWrappedReset: a reset behind TLS goes through as well.
func TestWrappedReset(t *testing.T) {
	for range 20 {
		g := start(t, "tls", "tcp", &Options{})
		mustWrite(t, g.client, "ping")
		mustRead(t, g.server, "ping")
		reset(bare(g.client).(half))
		mustFail(t, g.server)
		if s := g.wait(t); s.Cause != CauseDown || s.Err == nil {
			t.Fatalf("stats %+v", s)
		}
	}
}

// failingConn gives errors that are no socket's.
type failingConn struct {
	net.Conn
	readErr, writeErr error
}

func (c *failingConn) Read(p []byte) (int, error) {
	if c.readErr != nil {
		return 0, c.readErr
	}
	return c.Conn.Read(p)
}

func (c *failingConn) Write(p []byte) (int, error) {
	if c.writeErr != nil {
		return len(p) / 2, c.writeErr
	}
	return c.Conn.Write(p)
}

func TestOtherErrors(t *testing.T) {
	odd := errors.New("odd")
	t.Run("read", func(t *testing.T) {
		_, a := tcpPair(t)
		b, peer := tcpPair(t)
		s := Run(t.Context(), &failingConn{a, odd, nil}, nil, b, &Options{})
		if s.Cause != CauseDown || !errors.Is(s.Err, odd) {
			t.Errorf("stats %+v", s)
		}
		mustFail(t, peer)
	})
	t.Run("write", func(t *testing.T) {
		client, a := tcpPair(t)
		b, peer := tcpPair(t)
		mustWrite(t, client, "four")
		s := Run(t.Context(), a, nil, &failingConn{b, nil, odd}, &Options{})
		if s.Cause != CauseUp || !errors.Is(s.Err, odd) || s.Up != 2 {
			t.Errorf("stats %+v", s)
		}
		mustFail(t, client)
		peer.Close()
	})
}

// TestGoneClient: a server that neither reads nor ends doesn't keep the relay of a
// client that is gone.
func TestGoneClient(t *testing.T) {
	for _, kind := range []string{"tcp", "unix", "tls"} {
		g := newRig(t, kind, "tcp", "", &Options{})
		g.setBuffers(t, 64<<10)
		g.run(t, t.Context())
		block(t, g.client)
		bare(g.client).Close() // at once, even if it is TLS
		go func() { _, _ = io.CopyN(g.server, zeros{}, 1<<30) }()
		if s := g.wait(t); s.Cause != CauseDown || !gone(s.Err) {
			t.Errorf("%s: stats %+v", kind, s)
		}
	}
}
