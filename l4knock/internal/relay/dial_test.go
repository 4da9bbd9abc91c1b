// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// refused is an address where nobody listens.
func refused(t *testing.T) Upstream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return Upstream{Address: ln.Addr().String()}
}

func listening(t *testing.T, network, address string) Upstream {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return Upstream{network, ln.Addr().String()}
}

func TestDialOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	first, second := listening(t, "tcp4", "127.0.0.1:0"), listening(t, "unix", filepath.Join(t.TempDir(), "s"))
	for _, tc := range []struct {
		upstreams []Upstream
		want      int
	}{
		{[]Upstream{first, second}, 0},
		{[]Upstream{second, first}, 0},
		{[]Upstream{refused(t), first, second}, 1},
		{[]Upstream{{"unix", path}, refused(t), second}, 2},
	} {
		conn, got, err := Dial(t.Context(), &Options{Upstreams: tc.upstreams})
		if err != nil {
			t.Fatal(err)
		}
		want := tc.upstreams[tc.want]
		if got != want || conn.RemoteAddr().String() != want.Address {
			t.Errorf("reached %v at %v, want %v", got, conn.RemoteAddr(), want)
		}
		conn.Close()
	}
}

func TestDialErrors(t *testing.T) {
	if _, _, err := Dial(t.Context(), &Options{}); !errors.Is(err, ErrNoUpstreams) {
		t.Errorf("no upstreams: %v", err)
	}
	a, b := refused(t), Upstream{"unix", filepath.Join(t.TempDir(), "none")}
	_, _, err := Dial(t.Context(), &Options{Upstreams: []Upstream{a, b}})
	if err == nil || !strings.Contains(err.Error(), a.String()) || !strings.Contains(err.Error(), b.String()) {
		t.Errorf("error %q doesn't name both upstreams", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = Dial(ctx, &Options{Upstreams: []Upstream{a, b}})
	if !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "cancel") || strings.Contains(err.Error(), b.String()) {
		t.Errorf("after cancel: %v", err)
	}
}

func TestValidate(t *testing.T) {
	good := Options{
		Upstreams:     []Upstream{{Address: "localhost:1"}, {"tcp6", "[::1]:1"}, {"unix", "/run/s"}},
		ProxyProtocol: 2, KeepAlive: -1, IdleTimeout: time.Second,
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, bad := range map[string]Options{
		"PROXY protocol": {ProxyProtocol: 3},
		"dial timeout":   {DialTimeout: -1},
		"user timeout":   {UserTimeout: -1},
		"idle timeout":   {IdleTimeout: -1},
		"network":        {Upstreams: []Upstream{{"udp", "localhost:1"}}},
		"address":        {Upstreams: []Upstream{{"tcp", ""}}},
	} {
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v doesn't speak of the %s", err, want)
		}
	}
}
