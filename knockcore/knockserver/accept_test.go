// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

// faulty is a listener whose Accept fails a number of times.
type faulty struct {
	net.Listener
	fails atomic.Int64
	err   error
}

func (f *faulty) Accept() (net.Conn, error) {
	if f.fails.Add(-1) >= 0 {
		return nil, f.err
	}
	return f.Listener.Accept()
}

// passing is an error as custom listeners have them.
type passing struct{ temporary bool }

func (p passing) Error() string   { return "passing" }
func (p passing) Temporary() bool { return p.temporary }

func TestAcceptErrors(t *testing.T) {
	sys := func(errno syscall.Errno) error {
		return &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", errno)}
	}
	for _, err := range []error{sys(syscall.EMFILE), sys(syscall.ECONNABORTED), sys(syscall.ENOMEM), sys(syscall.EPERM), passing{true}} {
		t.Run(fmt.Sprint("recovers from ", err), func(t *testing.T) {
			raw := &faulty{Listener: listen(t), err: err}
			raw.fails.Store(3)
			ln, cfgErr := knockserver.NewListener(raw, knockserver.Config{Clients: clients(t, "alice")})
			if cfgErr != nil {
				t.Fatal(cfgErr)
			}
			defer ln.Close()
			go serveEcho(ln)
			echoes(t, knock(t, ln, "alice"), "recovered")
		})
	}
	for _, err := range []error{net.ErrClosed, sys(syscall.EBADF), sys(syscall.EINVAL), passing{}, errors.New("foreign")} {
		t.Run(fmt.Sprint("ends with ", err), func(t *testing.T) {
			before := runtime.NumGoroutine()
			raw := &faulty{Listener: listen(t), err: err}
			raw.fails.Store(1 << 40)
			ln, cfgErr := knockserver.NewListener(raw, knockserver.Config{Clients: clients(t, "alice")})
			if cfgErr != nil {
				t.Fatal(cfgErr)
			}
			defer ln.Close()
			for range 2 {
				if _, got := ln.Accept(); !errors.Is(got, err) {
					t.Errorf("Accept ended with %v", got)
				}
			}
			noneLeft(t, before)
		})
	}
	t.Run("is closed while it pauses", func(t *testing.T) {
		before := runtime.NumGoroutine()
		raw := &faulty{Listener: listen(t), err: sys(syscall.ENFILE)}
		raw.fails.Store(1 << 40)
		ln, err := knockserver.NewListener(raw, knockserver.Config{Clients: clients(t, "alice")})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := ln.Accept()
			ended <- err
		}()
		await(t, "some errors", func() bool { return raw.fails.Load() < 1<<40-3 })
		_ = ln.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept ended with %v", err)
		}
		noneLeft(t, before)
	})
}
