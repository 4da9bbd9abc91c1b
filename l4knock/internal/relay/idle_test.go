// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// pipeRig is a relay between two pipes, for tests with a clock of their own.
func pipeRig(t *testing.T, opts *Options) (client, server net.Conn, done chan Stats) {
	client, down := net.Pipe()
	up, server := net.Pipe()
	done = make(chan Stats, 1)
	go func() { done <- Run(t.Context(), down, nil, up, opts) }()
	return client, server, done
}

func TestIdleTimeout(t *testing.T) {
	const timeout = 10 * time.Second
	for _, way := range []string{"up", "down", "silent"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server, done := pipeRig(t, &Options{IdleTimeout: timeout})
				src, dst := client, server
				if way == "down" {
					src, dst = dst, src
				}
				start := time.Now()
				if way != "silent" {
					// One way only, and always nearly too late.
					for range 20 {
						time.Sleep(timeout - 1)
						mustWrite(t, src, "tick")
						mustRead(t, dst, "tick")
					}
				}
				last := time.Now()
				mustEnd(t, client)
				mustEnd(t, server)
				s := <-done
				if s.Cause != CauseIdle || !errors.Is(s.Err, ErrIdle) {
					t.Errorf("stats %+v", s)
				}
				if got := time.Since(last); got != timeout {
					t.Errorf("ended after a silence of %v, want %v", got, timeout)
				}
				if got := time.Since(start); s.Duration != got {
					t.Errorf("lasted %v, says %v", got, s.Duration)
				}
			})
		})
	}
}

func TestNoIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, done := pipeRig(t, &Options{})
		time.Sleep(1000 * time.Hour)
		mustWrite(t, client, "still here")
		mustRead(t, server, "still here")
		client.Close()
		if s := <-done; s.Cause != CauseDone {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestIdleEnd: sockets see an orderly end, unless bytes were lost.
func TestIdleEnd(t *testing.T) {
	for _, pair := range [][2]string{{"tcp", "tcp"}, {"tls", "tcp"}, {"unix", "unix"}} {
		t.Run(pair[0]+"-"+pair[1], func(t *testing.T) {
			t.Parallel()
			g := newRig(t, pair[0], pair[1], "hello", &Options{IdleTimeout: time.Second})
			g.run(t, t.Context())
			mustRead(t, g.server, "hello")
			mustEnd(t, g.client)
			mustEnd(t, g.server)
			if s := g.wait(t); s.Cause != CauseIdle || s.Err != ErrIdle {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestIdleLoss(t *testing.T) {
	for _, up := range []string{"tcp", "tls"} {
		g := newRig(t, "tcp", up, "", &Options{IdleTimeout: time.Hour})
		g.setBuffers(t, 128<<10)
		g.run(t, t.Context())
		for range 3 { // so that the direction waits with bytes, and without
			if _, err := io.CopyN(io.Discard, g.server, block(t, g.client)); err != nil {
				t.Fatal(err)
			}
		}
		block(t, g.client)
		g.Relay.expire(CauseIdle, ErrIdle)
		mustFail(t, g.server)
		if s := g.wait(t); s.Cause != CauseIdle {
			t.Errorf("stats %+v", s)
		}
	}
}

// TestIdleTouch: bytes count however they are moved.
func TestIdleTouch(t *testing.T) {
	for _, up := range []string{"tcp", "tls"} {
		g := start(t, "tcp", up, &Options{IdleTimeout: time.Hour})
		for _, size := range []int64{1, 1 << 20} { // copied, spliced
			for _, way := range [][2]half{{g.client, g.server}, {g.server, g.client}} {
				g.idle.last.Store(-1)
				go func() { _, _ = io.CopyN(way[0], zeros{}, size) }()
				if _, err := io.CopyN(io.Discard, way[1], size); err != nil {
					t.Fatal(err)
				}
				for g.idle.last.Load() == -1 { // set after the bytes were handed over
					time.Sleep(time.Millisecond)
				}
			}
		}
	}
}
