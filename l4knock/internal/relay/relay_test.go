// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// pump writes n random bytes to c in chunks of random sizes, then ends.
func pump(c half, n int, seed uint64) (sum [32]byte, err error) {
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test
	random := rand.NewChaCha8([32]byte{byte(seed)})
	h := sha256.New()
	buf := make([]byte, 300<<10)
	for n > 0 {
		chunk := 1 + rng.IntN(1<<rng.IntN(19))
		chunk = min(chunk, n, len(buf))
		_, _ = random.Read(buf[:chunk])
		h.Write(buf[:chunk])
		if _, err := c.Write(buf[:chunk]); err != nil {
			return sum, err
		}
		n -= chunk
		if rng.IntN(4) == 0 {
			runtime.Gosched()
		}
	}
	return [32]byte(h.Sum(nil)), c.CloseWrite()
}

// swallow reads c to its end.
func swallow(c net.Conn) (sum [32]byte, err error) {
	h := sha256.New()
	_, err = io.Copy(h, struct{ io.Reader }{c})
	return [32]byte(h.Sum(nil)), err
}

// exchange pumps both ways at once and compares what arrives with what was sent.
func exchange(t *testing.T, g *rig, size int) {
	t.Helper()
	var sums [4][32]byte
	var errs [4]error
	var wg sync.WaitGroup
	wg.Go(func() { sums[0], errs[0] = pump(g.client, size, 1) })
	wg.Go(func() { sums[1], errs[1] = swallow(g.server) })
	wg.Go(func() { sums[2], errs[2] = pump(g.server, size, 2) })
	wg.Go(func() { sums[3], errs[3] = swallow(g.client) })
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	if sums[0] != sums[1] || sums[2] != sums[3] {
		t.Fatal("what arrived is not what was sent")
	}
	s := g.wait(t)
	if s.Up != int64(size) || s.Down != int64(size) || s.Cause != CauseDone || s.Err != nil || s.Duration <= 0 {
		t.Fatalf("stats %+v", s)
	}
}

func TestIntegrity(t *testing.T) {
	for down := range kinds {
		for up := range kinds {
			t.Run(down+"-"+up, func(t *testing.T) {
				t.Parallel()
				const size = 8 << 20
				g := start(t, down, up, &Options{})
				zero := ZeroCopy(g.down.conn, g.up.conn)
				if want := canSplice && down != "tls" && up != "tls"; zero != want {
					t.Fatalf("ZeroCopy says %v", zero)
				}
				exchange(t, g, size)
				if s := g.Stats(); zero && s.Spliced < size || !zero && s.Spliced != 0 {
					t.Errorf("%d of %d bytes were spliced", s.Spliced, 2*size)
				}
			})
		}
	}
}

func TestHead(t *testing.T) {
	for _, up := range []string{"tcp", "tls"} {
		for _, size := range []int{1, 100, 16 << 10, 3 << 20} {
			t.Run(fmt.Sprint(up, size), func(t *testing.T) {
				head := strings.Repeat("h", size)
				g := newRig(t, "tcp", up, head, &Options{})
				mustWrite(t, g.client, "tail")
				g.run(t, t.Context())
				mustWrite(t, g.server, "greeting") // the head does not hold up the other direction
				mustRead(t, g.client, "greeting")
				mustRead(t, g.server, head+"tail")
				g.client.Close()
				mustEnd(t, g.server)
				g.server.Close()
				if s := g.wait(t); s.Up != int64(size)+4 || s.Down != 8 {
					t.Errorf("stats %+v", s)
				}
			})
		}
	}
}

// TestHalfClose: an end of one direction leaves the other alone, either way round.
func TestHalfClose(t *testing.T) {
	for down := range kinds {
		for up := range kinds {
			t.Run(down+"-"+up, func(t *testing.T) {
				t.Parallel()
				for i := range 20 {
					g := start(t, down, up, &Options{})
					first, second := g.client, g.server
					if i%2 == 1 {
						first, second = second, first
					}
					request := bytes.Repeat([]byte("request"), 1+i*1000)
					answer := bytes.Repeat([]byte("answer"), 1+i*30000)
					sent := make(chan error, 1)
					go func() {
						_, err := first.Write(request)
						sent <- errors.Join(err, first.CloseWrite())
					}()
					got, err := io.ReadAll(second)
					if err != nil || !bytes.Equal(got, request) {
						t.Fatalf("round %d: request of %d bytes: %d, %v", i, len(request), len(got), err)
					}
					if err := <-sent; err != nil {
						t.Fatal(err)
					}
					go func() {
						_, err := second.Write(answer)
						sent <- errors.Join(err, second.CloseWrite())
					}()
					got, err = io.ReadAll(first)
					if err != nil || !bytes.Equal(got, answer) {
						t.Fatalf("round %d: answer of %d bytes: %d, %v", i, len(answer), len(got), err)
					}
					if err := <-sent; err != nil {
						t.Fatal(err)
					}
					if s := g.wait(t); s.Cause != CauseDone {
						t.Fatalf("round %d: %+v", i, s)
					}
				}
			})
		}
	}
}

// TestNoHalfClose: what can't be closed halfway is closed when the other side ends.
func TestNoHalfClose(t *testing.T) {
	client, down := net.Pipe()
	up, server := tcpPair(t)
	done := make(chan Stats, 1)
	go func() { done <- Run(t.Context(), down, nil, up, &Options{}) }()
	mustWrite(t, server, "bye")
	server.CloseWrite()
	mustRead(t, client, "bye")
	mustEnd(t, client)
	if s := <-done; s.Cause != CauseDone || s.Down != 3 {
		t.Errorf("stats %+v", s)
	}
}

func TestCutBeforeRun(t *testing.T) {
	g := newRig(t, "tcp", "tcp", "head", &Options{})
	why := errors.New("revoked")
	g.Cut(why)
	g.Cut(nil)
	s := g.Run(t.Context())
	g.done <- s
	if s.Cause != CauseCut || !errors.Is(s.Err, why) || s.Up != 0 {
		t.Errorf("stats %+v", s)
	}
	mustFail(t, g.client)
	mustFail(t, g.server)
}

// mustFail reads c until it gives an error that is not an orderly end.
func mustFail(tb testing.TB, c net.Conn) {
	tb.Helper()
	_, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	if e, ok := err.(net.Error); err == nil || ok && e.Timeout() {
		tb.Fatalf("got %v, want a reset", err)
	}
}

// TestCut cuts relays that wait in each of the ways there are.
func TestCut(t *testing.T) {
	states := map[string]func(t *testing.T, g *rig){
		"fresh": func(*testing.T, *rig) {},
		"idle": func(t *testing.T, g *rig) {
			for range 3 {
				mustWrite(t, g.client, "ping")
				mustRead(t, g.server, "ping")
				mustWrite(t, g.server, "pong")
				mustRead(t, g.client, "pong")
			}
		},
		"half closed": func(t *testing.T, g *rig) {
			g.client.CloseWrite()
			mustEnd(t, g.server)
		},
		"server reads nothing": func(t *testing.T, g *rig) { block(t, g.client) },
		"client reads nothing": func(t *testing.T, g *rig) { block(t, g.server) },
		"nobody reads": func(t *testing.T, g *rig) {
			block(t, g.client)
			block(t, g.server)
		},
	}
	for _, pair := range [][2]string{{"tcp", "tcp"}, {"unix", "tcp"}, {"tls", "tcp"}, {"tcp", "tls"}} {
		for state, reach := range states {
			t.Run(pair[0]+"-"+pair[1]+"/"+state, func(t *testing.T) {
				t.Parallel()
				g := newRig(t, pair[0], pair[1], "", &Options{})
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				g.run(t, ctx)
				reach(t, g)
				why := errors.New("grant revoked")
				cancel(why)
				if s := g.wait(t); s.Cause != CauseCut || !errors.Is(s.Err, why) {
					t.Errorf("stats %+v", s)
				}
				if pair[0] == "tcp" {
					mustFail(t, g.client)
				}
				if pair[1] == "tcp" && state != "half closed" { // there, the server has seen the end
					mustFail(t, g.server)
				}
			})
		}
	}
}

func TestOnDone(t *testing.T) {
	var calls []Stats
	g := newRig(t, "tcp", "tcp", "", &Options{OnDone: func(s Stats) { calls = append(calls, s) }})
	g.client.Close()
	g.server.Close()
	s := g.Run(t.Context())
	g.done <- s
	if len(calls) != 1 || calls[0] != s || g.Stats() != s || s.Cause != CauseDone {
		t.Errorf("OnDone got %+v, Run returned %+v", calls, s)
	}
}

func TestLiveStats(t *testing.T) {
	g := start(t, "tcp", "tcp", &Options{})
	mustWrite(t, g.client, "ping")
	mustRead(t, g.server, "ping")
	mustWrite(t, g.server, "pong!")
	mustRead(t, g.client, "pong!")
	mustWrite(t, g.client, "x") // both counts were made before this one is read
	mustRead(t, g.server, "x")
	if s := g.Stats(); s.Cause != 0 || s.Cause.String() != "running" || s.Up < 4 || s.Duration <= 0 {
		t.Errorf("stats %+v", s)
	}
}
