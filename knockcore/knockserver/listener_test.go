// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

func TestListenerLetsClientsIn(t *testing.T) {
	ln := guarded(t, knockserver.Config{Methods: knockcore.NewMethodSet(knockcore.MethodEnvelopeV2, knockcore.MethodFrameV1)})
	go serveEcho(ln)
	v1 := func(f *wire.TCPFrame) { f.Method = knockcore.MethodFrameV1 }
	for name, change := range map[string]func(*wire.TCPFrame){"v2": nil, "v1": v1} {
		t.Run(name+" and payload in one segment", func(t *testing.T) {
			conn := dial(t, ln)
			_, _ = conn.Write(append(frame(t, port(ln), change), "payload"...))
			_ = conn.CloseWrite()
			if got := closed(t, conn); got != "payload" {
				t.Errorf("got %q", got)
			}
		})
		t.Run(name+" byte by byte", func(t *testing.T) {
			conn := dial(t, ln)
			for _, b := range append(frame(t, port(ln), change), "payload"...) {
				_, _ = conn.Write([]byte{b})
			}
			_ = conn.CloseWrite()
			if got := closed(t, conn); got != "payload" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestHalfClose sends a request and half-closes: the whole answer has to come.
func TestHalfClose(t *testing.T) {
	ln := guarded(t, knockserver.Config{})
	answer := bytes.Repeat([]byte("answer "), 100_000)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				request, _ := io.ReadAll(conn)
				_, _ = conn.Write(append(answer, request...))
				_ = conn.(interface{ CloseWrite() error }).CloseWrite()
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	for i := range 20 {
		conn := dial(t, ln)
		head := frame(t, port(ln), nil)
		if i%2 == 0 {
			head = append(head, "request"...)
		}
		_, _ = conn.Write(head)
		_ = conn.CloseWrite()
		if got := closed(t, conn); !strings.HasPrefix(got, string(answer)) || len(head)%64 != 0 && !strings.HasSuffix(got, "request") {
			t.Errorf("exchange %d: got %d bytes of %d", i, len(got), len(answer))
		}
	}
}

func TestStrangersAreRefused(t *testing.T) {
	var seen events
	covered := make(chan string, 1)
	ln := guarded(t, knockserver.Config{
		Observer: seen.observe,
		OnRefused: func(conn net.Conn, err error) {
			defer conn.Close()
			head, _ := io.ReadAll(conn)
			covered <- fmt.Sprint(knockcore.ReasonOf(err), " ", len(head))
			_, _ = io.WriteString(conn, "cover")
		},
	})
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "service")
			_ = conn.Close()
		}
	}()
	good := frame(t, port(ln), nil)
	conn := dial(t, ln)
	_, _ = conn.Write(good)
	if got := closed(t, conn); got != "service" {
		t.Fatalf("a good frame got %q", got)
	}
	tampered := frame(t, port(ln), func(f *wire.TCPFrame) { f.Bucket = 128 })
	tampered[len(tampered)-1] ^= 1
	for name, test := range map[string]struct {
		head   []byte
		reason knockcore.Reason
	}{
		"http":           {[]byte("GET / HTTP/1.1\r\n\r\n"), knockcore.ReasonUnknownClient},
		"nothing":        {nil, knockcore.ReasonMalformed},
		"replay":         {good, knockcore.ReasonReplay},
		"tampered":       {tampered, knockcore.ReasonMalformed}, // more could come, but doesn't
		"truncated":      {frame(t, port(ln), nil)[:100], knockcore.ReasonMalformed},
		"v1 not enabled": {frame(t, port(ln), func(f *wire.TCPFrame) { f.Method = knockcore.MethodFrameV1 }), knockcore.ReasonUnknownClient},
		"wrong port":     {frame(t, port(ln)+1, nil), knockcore.ReasonUnknownClient},
		"stale":          {frame(t, port(ln), func(f *wire.TCPFrame) { f.Time -= 31_000 }), knockcore.ReasonStale},
		"future":         {frame(t, port(ln), func(f *wire.TCPFrame) { f.Time += 60_000 }), knockcore.ReasonFuture}, // still, when its turn comes
		"garbage":        {bytes.Repeat([]byte{0xaa}, 100_000), knockcore.ReasonUnknownClient},
	} {
		t.Run(name, func(t *testing.T) {
			before := seen.count(knockcore.EventRefused, test.reason)
			conn := dial(t, ln)
			_, _ = conn.Write(test.head)
			_ = conn.CloseWrite()
			if got := closed(t, conn); got != "cover" {
				t.Errorf("got %q", got)
			}
			if got, want := <-covered, fmt.Sprint(test.reason, " ", len(test.head)); got != want {
				t.Errorf("the cover got %q, expected %q", got, want)
			}
			if after := seen.count(knockcore.EventRefused, test.reason); after != before+1 {
				t.Errorf("the observer was told %d times", after-before)
			}
		})
	}
	t.Run("names the client", func(t *testing.T) {
		whole := frame(t, port(ln), func(f *wire.TCPFrame) { f.Bucket = 512 })
		whole[len(whole)-1] ^= 1
		conn := dial(t, ln)
		_, _ = conn.Write(whole)
		_ = conn.CloseWrite()
		closed(t, conn)
		<-covered
		seen.mu.Lock()
		defer seen.mu.Unlock()
		var refusal *knockcore.Refusal
		if err := seen.list[len(seen.list)-1].Err; !errors.As(err, &refusal) || refusal.Reason != knockcore.ReasonAuthFailed || refusal.Client == "" {
			t.Errorf("the observer was told %v", err)
		}
	})
}

func TestParallelReplay(t *testing.T) {
	ln := guarded(t, knockserver.Config{OnRefused: func(conn net.Conn, _ error) { _ = conn.Close() }})
	go serveEcho(ln)
	copied := append(frame(t, port(ln), nil), "in"...)
	var wg sync.WaitGroup
	answers := make(chan string, 100)
	for range cap(answers) {
		conn := dial(t, ln)
		wg.Go(func() {
			_, _ = conn.Write(copied)
			_ = conn.CloseWrite()
			said, _ := io.ReadAll(conn)
			answers <- string(said)
		})
	}
	wg.Wait()
	close(answers)
	won := 0
	for a := range answers {
		if a == "in" {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d of 100 copies were let in, expected exactly 1", won)
	}
}

// TestSilentConnections has more silent streams than are allowed to be undecided,
// and clients beside them.
func TestSilentConnections(t *testing.T) {
	var seen events
	ln := guarded(t, knockserver.Config{MaxPending: 64, Wait: knockserver.DefaultWait * 20, Observer: seen.observe})
	go serveEcho(ln)
	for i := range 200 {
		silent := dial(t, ln)
		if i%2 == 0 {
			_, _ = silent.Write([]byte("x"))
		}
	}
	for i := range 40 {
		echoes(t, knock(t, ln, "alice"), fmt.Sprint("client ", i))
	}
	if seen.count(knockcore.EventRefused, knockcore.ReasonLimited) == 0 {
		t.Error("nobody had to make room")
	}
}

func TestCloseEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	strangers := make(chan struct{}, 10)
	raw := listen(t)
	ln, err := knockserver.NewListener(raw, knockserver.Config{
		Clients: clients(t, "alice"),
		OnRefused: func(conn net.Conn, _ error) {
			strangers <- struct{}{}
			_, _ = io.Copy(io.Discard, conn)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	first := knock(t, ln, "alice")
	accepted := accept(t, ln)
	var others []net.Conn
	for range 5 {
		stranger := dial(t, ln)
		_, _ = stranger.Write([]byte("GET / HTTP/1.1\r\n"))
		<-strangers
		others = append(others, stranger, dial(t, ln), knock(t, ln, "alice"))
	}
	ended := make(chan error, 1)
	go func() {
		for { // takes what was admitted, and then the end
			conn, err := ln.Accept()
			if err != nil {
				ended <- err
				return
			}
			_ = conn.Close()
		}
	}()
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ended with %v", err)
	}
	if err := ln.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	for _, conn := range others {
		closed(t, conn)
	}
	_, _ = io.WriteString(accepted, "still here\n")
	_ = accepted.Close()
	if got := closed(t, first); got != "still here\n" {
		t.Errorf("what was accepted said %q", got)
	}
	noneLeft(t, before)
}

// TestNobodyAccepts has more clients than may wait for Accept: those beyond wait
// in the system's queue, and all of them get in.
func TestNobodyAccepts(t *testing.T) {
	var seen events
	ln := guarded(t, knockserver.Config{Observer: seen.observe})
	echoed := knock(t, ln, "alice")
	first := accept(t, ln) // from now on connections are taken
	const many = 400
	conns := []net.Conn{echoed}
	for range many {
		conns = append(conns, knock(t, ln, "alice"))
	}
	await(t, "the queue to fill", func() bool { return seen.count(knockcore.EventGranted, knockcore.ReasonNone) >= 256 })
	go func() { _, _ = io.Copy(first, first) }()
	go serveEcho(ln)
	for i, conn := range conns {
		echoes(t, conn, fmt.Sprint("client ", i))
	}
}
