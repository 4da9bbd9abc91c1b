// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient/clienttest"
)

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (f dialFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

func TestDialer(t *testing.T) {
	server := startServer(t, new(clienttest.Server))
	d := knockclient.Dialer{Config: testConfig()}
	d.Config.ServerProof = true
	conn, err := d.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, ok := conn.(*net.TCPConn); !ok {
		t.Errorf("Got a %T, want the base dialer's connection", conn)
	}
	if got := roundTrip(t, conn, "hello"); got != "hello" {
		t.Errorf("Got %q, want the echo", got)
	}
}

// TestDialerPort checks that the protected port is that of the address asked
// for, not of the proxy that the connection goes through.
func TestDialerPort(t *testing.T) {
	for address, port := range map[string]uint16{"guarded.example:2222": 2222, "guarded.example:ssh": 22, "[2001:db8::1]:443": 443} {
		server := startServer(t, &clienttest.Server{Port: port})
		d := knockclient.Dialer{Config: testConfig()}
		d.Config.ServerProof = true
		d.Base = dialFunc(func(ctx context.Context, network, asked string) (net.Conn, error) {
			if asked != address {
				t.Errorf("Base dialer got %q, want %q", asked, address)
			}
			return new(net.Dialer).DialContext(ctx, network, server.Addr())
		})
		conn, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Errorf("Dialling %s: %v", address, err)
			continue
		}
		_ = conn.Close()
	}
}

func TestDialerUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	d := knockclient.Dialer{Config: testConfig()}
	if conn, err := d.Dial("unix", path); err == nil || !strings.Contains(err.Error(), "set Config.Port") {
		t.Errorf("Got %v, %v without a port, want an error that says so", conn, err)
	}
	d.Config.Port = 22
	conn, err := d.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestDialerErrors(t *testing.T) {
	server := startServer(t, &clienttest.Server{Answer: clienttest.Close})
	refused := errors.New("refused by the base dialer")
	base := dialFunc(func(context.Context, string, string) (net.Conn, error) { return nil, refused })
	cfg := testConfig()
	cfg.ServerProof = true
	bad := cfg
	bad.ClientID = ""
	tests := map[string]struct {
		dialer           knockclient.Dialer
		network, address string
		want             error
		text             string
	}{
		"base":     {knockclient.Dialer{Config: cfg, Base: base}, "tcp", "h:1", refused, "refused"},
		"proof":    {knockclient.Dialer{Config: cfg}, "tcp", server.Addr(), knockclient.ErrNoProof, "authenticating to " + server.Addr() + " as alice"},
		"config":   {knockclient.Dialer{Config: bad, Base: base}, "tcp", "h:1", nil, "client ID"},
		"datagram": {knockclient.Dialer{Config: cfg, Base: base}, "udp", "h:1", nil, "no network of streams"},
		"no port":  {knockclient.Dialer{Config: cfg, Base: base}, "tcp", "h", nil, "missing port"},
		"port 0":   {knockclient.Dialer{Config: cfg, Base: base}, "tcp", "h:0", nil, "has none"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			conn, err := test.dialer.DialContext(t.Context(), test.network, test.address)
			if conn != nil || err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("Got %v, %v; want an error with %q", conn, err, test.text)
			}
		})
	}
}

func TestDialerConcurrently(t *testing.T) {
	server := startServer(t, new(clienttest.Server))
	d := knockclient.Dialer{Config: testConfig()}
	d.Config.ServerProof = true
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			conn, err := d.DialContext(t.Context(), "tcp", server.Addr())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			want := fmt.Sprint("request ", i)
			_, _ = io.WriteString(conn, want)
			_ = conn.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(conn); string(got) != want || err != nil {
				t.Errorf("Got %q, %v; want %q", got, err, want)
			}
		})
	}
	wg.Wait()
	nonces := make(map[string]bool)
	for _, f := range server.Frames() {
		nonces[string(f.Nonce)] = true
	}
	if len(nonces) != 50 {
		t.Errorf("Got %d nonces, want 50", len(nonces))
	}
}
