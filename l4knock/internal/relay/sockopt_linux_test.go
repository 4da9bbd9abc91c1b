// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"golang.org/x/sys/unix"
)

func TestTune(t *testing.T) {
	option := func(c net.Conn, level, name int) (n int) {
		raw, err := bare(c).(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if cerr := raw.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), level, name) }); errors.Join(cerr, err) != nil {
			t.Fatal(cerr, err)
		}
		return n
	}
	g := newRig(t, "tls", "tcp", "", &Options{KeepAlive: 77 * time.Second, UserTimeout: 1500 * time.Microsecond})
	for _, c := range []net.Conn{g.down.conn, g.up.conn} {
		for name, want := range map[int]int{unix.TCP_KEEPIDLE: 77, unix.TCP_KEEPINTVL: 15, unix.TCP_USER_TIMEOUT: 2} {
			if got := option(c, unix.IPPROTO_TCP, name); got != want {
				t.Errorf("option %d is %d, want %d", name, got, want)
			}
		}
		if option(c, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 1 {
			t.Error("no keepalive")
		}
	}
	g = newRig(t, "tcp", "tcp", "", &Options{KeepAlive: -1})
	for _, c := range []net.Conn{g.down.conn, g.up.conn} {
		if option(c, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 {
			t.Error("keepalive, though it was to be turned off")
		}
	}
	newRig(t, "unix", "unix", "", &Options{KeepAlive: time.Second, UserTimeout: time.Second})
}

// TestIdleSlowPeer: a peer that takes in what the kernel holds for it is not idle.
func TestIdleSlowPeer(t *testing.T) {
	for _, up := range []string{"tcp", "tls"} {
		t.Run(up, func(t *testing.T) {
			g := start(t, "tcp", up, &Options{IdleTimeout: time.Hour})
			block(t, g.client)
			more := make(chan error, 1)
			go func() { _, err := io.Copy(g.client, endless{}); more <- err }()
			defer func() { <-more }() // it ends with the relay
			look := func() bool {
				g.idle.last.Store(-int64(g.idle.timeout)) // it is an hour later
				g.idle.look()
				return g.ending.Load() == nil
			}
			if !look() {
				t.Fatal("ended with bytes on their way")
			}
			for range 3 {
				if _, err := io.CopyN(io.Discard, g.server, 1<<20); err != nil {
					t.Fatal(err)
				}
				moved := int64(-1)
				program.Await(t, "the server to take bytes in and the relay to wait for it again", func() bool {
					before := moved
					moved = g.toUp.moved.Load()
					return g.up.taken(moved) > g.idle.taken[1] && g.toUp.writing.Load() && moved == before
				})
				if !look() {
					t.Fatal("ended though the server takes bytes in")
				}
			}
			program.Await(t, "a standstill", func() bool { return !look() })
			if s := g.wait(t); s.Cause != CauseIdle {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// endless has bytes as long as somebody wants some.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// blackhole is an address that doesn't answer: a listener whose queue is full.
func blackhole(t *testing.T) Upstream {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0),
	); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	u := Upstream{Address: (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}).String()}
	for range 16 {
		c, err := net.DialTimeout("tcp", u.Address, time.Second)
		if err != nil {
			return u
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue does not fill")
	return u
}

func TestDialTimeout(t *testing.T) {
	hole, good := blackhole(t), listening(t, "tcp", "127.0.0.1:0")
	opts := &Options{Upstreams: []Upstream{hole, good}, DialTimeout: time.Second}
	conn, got, err := Dial(t.Context(), opts)
	if err != nil || got != good {
		t.Fatalf("reached %v, %v", got, err)
	}
	conn.Close()
	opts.Upstreams = []Upstream{hole, refused(t)}
	_, _, err = Dial(t.Context(), opts)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("error %v, want a timeout and a refusal", err)
	}
}
