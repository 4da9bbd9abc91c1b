// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient/clienttest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// TestOpening checks that frame and knock have the same session ID, a fresh one
// for each connection.
func TestOpening(t *testing.T) {
	server := startServer(t, new(clienttest.Server))
	r := listenUDP(t, loopback)
	var seen []string
	for _, noSession := range []bool{false, false, true} {
		var told *knockclient.Sent
		d := knockclient.Dialer{Config: testConfig(), Opening: &knockclient.Opening{
			Port: r.port(), NoSession: noSession, Sent: func(s *knockclient.Sent) { told = s },
		}}
		d.Config.ServerProof = true
		conn, err := d.DialContext(t.Context(), "tcp", server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if got := roundTrip(t, conn, "hello"); got != "hello" {
			t.Errorf("Got %q", got)
		}
		_ = conn.Close()
		b, _ := r.next(t)
		knock := openDatagram(t, b, netip.MustParseAddrPort(server.Addr()).Port())
		frames := server.Frames()
		session := string(frames[len(frames)-1].Session)
		if noSession {
			if session != "" || len(knock.Session) != 16 {
				t.Errorf("Frame has session %x, the knock %x", session, knock.Session)
			}
			continue
		}
		if session != string(knock.Session) || session != string(told.Session) || len(session) != 16 || slices.Contains(seen, session) {
			t.Errorf("Frame has session %x, the knock %x, the caller %v", session, knock.Session, told.Session)
		}
		seen = append(seen, session)
	}
}

// TestOpeningSource checks that the connection comes from where the knock did: that
// is the address that it opened for.
func TestOpeningSource(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	r := listenUDP(t, loopback)
	source := netip.MustParseAddr("127.0.0.9")
	d := knockclient.Dialer{Opening: &knockclient.Opening{
		Knock:  knockclient.Knock{Method: knockcore.MethodPyknock, Secret: knockcore.NewSecret([]byte("psk"))},
		Sender: knockclient.Sender{Source: source}, Port: r.port(), NoFrame: true,
	}}
	conn, err := d.DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, from := r.next(t); from.Addr() != source {
		t.Errorf("The knock came from %v", from)
	}
	if from := netip.MustParseAddrPort(conn.LocalAddr().String()); from.Addr() != source {
		t.Errorf("The connection came from %v", from)
	}
}

// TestOpeningNoFrame checks a service that a knock alone opens, also where the
// knock goes to another host.
func TestOpeningNoFrame(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	r := listenUDP(t, loopback)
	psk := knockcore.NewSecret([]byte("psk"))
	d := knockclient.Dialer{Opening: &knockclient.Opening{
		Knock: knockclient.Knock{Method: knockcore.MethodPyknock, Secret: psk}, Port: r.port(), Host: "localhost", NoFrame: true,
	}}
	conn, err := d.DialContext(t.Context(), "tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	b, _ := r.next(t)
	if _, err := wire.OpenPyknock(time.Now(), time.Hour, psk, b); err != nil {
		t.Error(err)
	}
	d.Opening.Knock.Method = knockcore.MethodUDP
	if _, err := d.DialContext(t.Context(), "tcp4", listener.Addr().String()); err == nil {
		t.Error("A knock without client was sent")
	}
}

// dialEach is a base dialer.
type dialEach func(ctx context.Context, address string) (net.Conn, error)

func (f dialEach) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	return f(ctx, address)
}

func TestStaggered(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		ended := 0
		base := dialEach(func(ctx context.Context, address string) (net.Conn, error) {
			mu.Lock()
			n := len(at)
			at = append(at, time.Since(start))
			mu.Unlock()
			if address == "192.0.2.1:22" {
				switch n / 2 {
				case 1:
					return nil, errors.New("refused") // a firewall that rejects; no reason to stop
				case 4:
					time.Sleep(10 * time.Millisecond)
					conn, _ := net.Pipe()
					return conn, nil
				}
			}
			<-ctx.Done() // a SYN that was lost
			mu.Lock()
			ended++
			mu.Unlock()
			return nil, ctx.Err()
		})
		d := knockclient.Staggered{Base: base, Timeout: time.Minute}
		conn, err := d.Dial(t.Context(), "tcp", addrs, 22)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		synctest.Wait()
		const ms = time.Millisecond
		want := []time.Duration{0, 0, 25 * ms, 25 * ms, 75 * ms, 75 * ms, 175 * ms, 175 * ms, 375 * ms, 375 * ms}
		if !slices.Equal(at, want) || time.Since(start) != 385*ms {
			t.Errorf("Attempts at %v, connected after %v; want %v, 385ms", at, time.Since(start), want)
		}
		if ended != 8 {
			t.Errorf("%d attempts ended, want 8", ended)
		}
	})
}

// TestStaggeredLosers checks that every connection but the first is closed, and
// that failing ends at the timeout.
func TestStaggeredLosers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var remote []net.Conn
		base := dialEach(func(ctx context.Context, _ string) (net.Conn, error) {
			a, b := net.Pipe()
			mu.Lock()
			remote = append(remote, b)
			mu.Unlock()
			time.Sleep(time.Second) // all of them connect, whatever became of ctx
			return a, nil
		})
		d := knockclient.Staggered{Base: base, Timeout: time.Minute}
		conn, err := d.Dial(t.Context(), "tcp", []netip.Addr{netip.MustParseAddr("192.0.2.1")}, 22)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for i, c := range remote {
			if i > 0 {
				_, err := c.Read(make([]byte, 1)) // ends only when the other side closes
				if err == nil {
					t.Errorf("Connection %d is open", i)
				}
			}
		}
		_ = conn.Close()

		var attempts atomic.Int32
		start := time.Now()
		d = knockclient.Staggered{Timeout: 5 * time.Second, Base: dialEach(func(context.Context, string) (net.Conn, error) {
			attempts.Add(1)
			return nil, errors.New("refused")
		})}
		_, err = d.Dial(t.Context(), "tcp", []netip.Addr{netip.MustParseAddr("192.0.2.1")}, 22)
		var op *net.OpError
		if !errors.As(err, &op) || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("Got %v after %v", err, time.Since(start))
		}
		if n := attempts.Load(); n != 10 { // at 0, 25, 75, 175, 375, 775, 1575, 2575, 3575, 4575 ms
			t.Errorf("%d attempts, want 10", n)
		}
	})
}
