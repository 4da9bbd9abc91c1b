// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

const datagramSecret = "a secret of alice, long enough"

// withSource is a Caddyfile with an UDP source; more goes into the knock block.
func withSource(listen, options, more string) string {
	return fmt.Sprintf(`{
	admin off
	knock {
		client alice {
			secret "%s"
			pyknock "the pyknock key of alice"
			fwknop "a fwknop key of alice" "the HMAC key of alice"
			services all
		}
		service web tcp/443
		source udp %s {
			%s
		}
		store memory
		allow_local
		%s
	}
}
`, datagramSecret, listen, options, more)
}

func datagram(t testing.TB) []byte {
	t.Helper()
	d := wire.Datagram{Method: knockcore.MethodUDP, Port: 443, Time: time.Now().UnixMilli()}
	b, err := d.Seal(&knockcore.Credential{Client: &knockcore.Client{ID: "alice"}, Secret: knockcore.NewSecret([]byte(datagramSecret))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sender is a socket that knocks from an address of its own, which is returned.
func sender(t testing.TB, to string) (*net.UDPConn, netip.Addr) {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
}

func isIn(t testing.TB, addr netip.Addr) bool {
	t.Helper()
	return knockcore.NewQuery([]string{"web"}, nil).Match(apptest.App(t).Running().State().Table, addr)
}

func TestSourceTakesEachMethod(t *testing.T) {
	port := fmt.Sprint(program.FreePort(t))
	for name, payload := range map[string]func(netip.Addr) []byte{
		"udp": func(netip.Addr) []byte { return datagram(t) },
		"pyknock": func(me netip.Addr) []byte {
			b, err := (&wire.Pyknock{Addr: me, Time: wire.PyknockTime(time.Now())}).Seal(knockcore.NewSecret([]byte("the pyknock key of alice")))
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		"fwknop": func(netip.Addr) []byte {
			f := wire.Fwknop{
				User: "alice", Type: wire.FwknopAccess, Time: time.Now().Unix(), Allow: netip.IPv4Unspecified(),
				Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 443, High: 443}},
			}
			b, err := f.Seal(knockcore.FwknopKeys{
				Encryption: knockcore.NewSecret([]byte("a fwknop key of alice")), HMAC: knockcore.NewSecret([]byte("the HMAC key of alice")),
			})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	} {
		for _, host := range []string{"127.0.0.1", "::1"} {
			t.Run(name+" "+host, func(t *testing.T) {
				apptest.Load(t, withSource(":"+port, "", ""))
				c, me := sender(t, net.JoinHostPort(host, port))
				if isIn(t, me) {
					t.Fatal("is in from the beginning")
				}
				if _, err := c.Write(payload(me)); err != nil {
					t.Fatal(err)
				}
				apptest.Await(t, "a grant", func() bool { return isIn(t, me) })
				_ = caddy.Stop()
			})
		}
	}
}

// TestSourcesOverReloads knocks all the time while configurations come and go,
// good ones, ones that fail, and ones that listen elsewhere besides. Each knock
// must become a grant or a renewal.
func TestSourcesOverReloads(t *testing.T) {
	port, second := fmt.Sprint(program.FreePort(t)), fmt.Sprint(program.FreePort(t))
	adapt := func(listen, options string) []byte {
		cfg, err := apptest.Adapt(withSource(listen, options, ""))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := caddy.Load(adapt(":"+port, ""), true); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	c, me := sender(t, "127.0.0.1:"+port)
	granted := func() uint64 { return knocksOf("udp", "ok") }
	first := granted()
	stop, sent := make(chan struct{}), make(chan uint64)
	go func() {
		n := uint64(0)
		defer func() { sent <- n }()
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if _, err := c.Write(datagram(t)); err == nil {
				n++
			}
		}
	}()
	withFailing := func(cfg []byte) []byte {
		var v map[string]any
		if err := json.Unmarshal(cfg, &v); err != nil {
			t.Fatal(err)
		}
		v["apps"].(map[string]any)["failing"] = map[string]bool{"starting": true}
		cfg, _ = json.Marshal(v)
		return cfg
	}
	configs := [][]byte{
		adapt(":"+port, "queue 2000"),
		adapt(":"+port+" :"+second, "workers 3"),
		withFailing(adapt(":"+second+" :"+port, "queue 3000")),
		adapt("127.0.0.1:"+port, ""), // narrower: a new socket
		withFailing(adapt(":"+port, "")),
		adapt(":"+port, ""), // wider again
	}
	for i := range 30 {
		cfg := configs[i%len(configs)]
		if err := caddy.Load(cfg, true); (err != nil) != bytes.Contains(cfg, []byte("failing")) {
			t.Fatalf("configuration %d: %v", i%len(configs), err)
		}
	}
	close(stop)
	n := <-sent
	apptest.Await(t, "all knocks to be decided", func() bool { return granted()-first >= n })
	if got := granted() - first; got != n {
		t.Errorf("%d knocks, %d granted", n, got)
	}
	if n < 30 || !isIn(t, me) {
		t.Errorf("only %d knocks were made", n)
	}
	apptest.Await(t, "the goroutines of old configurations to end", func() bool { return runtime.NumGoroutine() <= before+2 })
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	// Nothing holds the port any more.
	free, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
}

// TestSequenceOverReload: the parts of one knock come before and after a reload.
func TestSequenceOverReload(t *testing.T) {
	port := fmt.Sprint(program.FreePort(t))
	cfg := withSource(":"+port, "sequence 2 1m", "")
	apptest.Load(t, cfg)
	c, me := sender(t, "127.0.0.1:"+port)
	for i := range 2 {
		d := wire.Datagram{
			Method: knockcore.MethodUDPSeq, Port: 443, Time: time.Now().UnixMilli(),
			Sequence: true, SequenceID: [16]byte{1}, Index: uint8(i), Total: 2,
		}
		b, err := d.Seal(&knockcore.Credential{Client: &knockcore.Client{ID: "alice"}, Secret: knockcore.NewSecret([]byte(datagramSecret))})
		if err != nil {
			t.Fatal(err)
		}
		if isIn(t, me) {
			t.Fatal("in too early")
		}
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		apptest.Load(t, strings.Replace(cfg, "sequence 2 1m", fmt.Sprintf("sequence 2 1m\n\t\t\tqueue %d", 100+i), 1))
	}
	apptest.Await(t, "a grant", func() bool { return isIn(t, me) })
}

// TestPortTaken: a port that another program has is an error, and what ran before
// goes on.
func TestPortTaken(t *testing.T) {
	taken, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.LocalAddr().String())
	own := fmt.Sprint(program.FreePort(t))
	apptest.Load(t, withSource(":"+own, "", ""))
	if err := apptest.TryLoad(t, withSource(":"+own+" :"+port, "", "")); err == nil || !strings.Contains(err.Error(), "listening on udp 0.0.0.0:"+port) {
		t.Fatalf("%v", err)
	}
	c, me := sender(t, "127.0.0.1:"+own)
	if _, err := c.Write(datagram(t)); err != nil {
		t.Fatal(err)
	}
	apptest.Await(t, "a grant", func() bool { return isIn(t, me) })
}
