// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// doorText is a Caddyfile with a guarded HTTPS site and one to knock at.
func doorText(https, knock int, servers string) string {
	return fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https disable_redirects
	skip_install_trust
	log {
		level ERROR
	}
	servers :%d {
		%s
	}
	knock {
		store memory
		allow_local
		client admin {
			api_key %s
			services web
		}
		service web tcp/%d udp/%d {
			open_for 10m
		}
		service other tcp/1
	}
}
https://localhost:%d {
	tls internal
	respond "behind the door"
}
http://localhost:%d {
	knock
}
`, https, servers, adminKey, https, https, https, knock)
}

const (
	guardTCP  = "listener_wrappers {\n knocked web\n tls\n}\n"
	guardUDP  = "packet_conn_wrappers {\n knocked web\n}\n"
	guardBoth = guardTCP + guardUDP
)

var clientTLS = &tls.Config{ServerName: "localhost", InsecureSkipVerify: true} // the test's own CA

// getTLS asks for the site over TCP from an address.
func getTLS(t *testing.T, peer string, port int) (string, error) {
	t.Helper()
	client := from(t, peer)
	client.Transport.(*http.Transport).TLSClientConfig = clientTLS
	client.Transport = program.Persistent(client.Transport) // the old socket of a reload resets
	return body(client.Get(fmt.Sprintf("https://localhost:%d/", port)))
}

func body(resp *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// getH3 asks for the site over HTTP/3.
func getH3(t *testing.T, peer string, port int, patience time.Duration) (string, error) {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(peer), 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tr := &quic.Transport{Conn: conn}
	defer tr.Close()
	h3 := &http3.Transport{TLSClientConfig: clientTLS, Dial: func(ctx context.Context, addr string, tlsCfg *tls.Config, cfg *quic.Config) (*quic.Conn, error) {
		return tr.DialEarly(ctx, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))), tlsCfg, cfg)
	}}
	defer h3.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://localhost:%d/", port), nil)
	if err != nil {
		t.Fatal(err)
	}
	return body(h3.RoundTrip(req))
}

const (
	enough  = 20 * time.Second
	briefly = 300 * time.Millisecond
)

// TestDoors: strangers get neither TLS nor QUIC, those who knocked get both.
func TestDoors(t *testing.T) {
	https, knock := program.FreePort(t), program.FreePort(t)
	apptest.Load(t, doorText(https, knock, guardBoth))
	const peer, stranger = "127.0.0.5", "127.0.0.6"
	if page, err := getTLS(t, peer, https); err == nil {
		t.Fatalf("a stranger got %q", page)
	}
	if page, err := getH3(t, peer, https, briefly); err == nil {
		t.Fatalf("a stranger got %q by HTTP/3", page)
	}
	// No byte of TLS: the connection is reset.
	if raw, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", https)); err == nil { // otherwise the reset came at once
		_ = raw.SetDeadline(time.Now().Add(enough))
		_, writeErr := raw.Write([]byte("GET / HTTP/1.0\r\n\r\n")) // of a reset one of the two is told
		if answer, err := io.ReadAll(raw); err == nil && writeErr == nil || len(answer) > 0 {
			t.Errorf("a stranger got %q, %v and %v instead of a reset", answer, writeErr, err)
		}
		_ = raw.Close()
	}

	knockOK(t, fmt.Sprintf("localhost:%d", knock), peer, adminKey, "")
	// Caddy makes its certificate in the background.
	program.Await(t, "the certificate", func() bool { _, err := getTLS(t, peer, https); return err == nil })
	inside := func(when string) {
		t.Helper()
		if page, err := getTLS(t, peer, https); page != "behind the door" {
			t.Errorf("%s: %q, %v", when, page, err)
		}
		if page, err := getH3(t, peer, https, enough); page != "behind the door" {
			t.Errorf("%s, by HTTP/3: %q, %v", when, page, err)
		}
		if page, err := getH3(t, stranger, https, briefly); err == nil {
			t.Errorf("%s, a stranger got %q by HTTP/3", when, page)
		}
	}
	inside("after the knock")
	// Caddy keeps the socket over reloads; what is configured counts nevertheless.
	apptest.Load(t, doorText(https, knock, strings.Replace(guardBoth, "packet_conn_wrappers {\n knocked web", "packet_conn_wrappers {\n knocked other", 1)))
	if page, err := getH3(t, peer, https, briefly); err == nil {
		t.Errorf("without a grant for the other service: %q", page)
	}
	apptest.Load(t, doorText(https, knock, guardBoth))
	inside("after reloads")
	// A wrapper that is left out stays until the socket is closed.
	apptest.Load(t, doorText(https, knock, ""))
	if page, err := getH3(t, stranger, https, briefly); err == nil {
		t.Errorf("a stranger got %q", page)
	}
	program.Await(t, "TCP without a door", func() bool { // when the old socket is closed
		page, _ := getTLS(t, stranger, https)
		return page == "behind the door"
	})
}

// TestDoorErrors: what would leave a way around is refused.
func TestDoorErrors(t *testing.T) {
	https, knock := program.FreePort(t), program.FreePort(t)
	for name, c := range map[string]struct{ servers, want string }{
		"HTTP/3 unguarded": {guardTCP, "Caddyfile:11: HTTP/3 on :"},
		"after TLS":        {"listener_wrappers {\n proxy_protocol\n tls\n knocked web\n}\n" + guardUDP, "put `tls` after `knocked`"},
		"no tls":           {"listener_wrappers {\n knocked web\n}\n" + guardUDP, "put `tls` after `knocked`"},
		"unknown service":  {"listener_wrappers {\n knocked ssh\n tls\n}\n" + guardUDP, "there is no service \"ssh\""},
		"unknown option":   {"listener_wrappers {\n knocked {\n  nonsense\n }\n tls\n}\n", "expect services, clients, allow"},
		"bad prefix":       {"listener_wrappers {\n knocked {\n  allow 1.2.3.4/24\n }\n tls\n}\n", "did you mean 1.2.3.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			err := apptest.TryLoad(t, doorText(https, knock, c.servers))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; expected %q", err, c.want)
			}
		})
	}
	// A socket that is open without a guard stays so, and that is said.
	apptest.Load(t, doorText(https, knock, ""))
	err := apptest.TryLoad(t, doorText(https, knock, guardBoth))
	if err == nil || !strings.Contains(err.Error(), "restart Caddy") {
		t.Fatalf("a guard for an open socket: %v", err)
	}
	apptest.Load(t, doorText(https, knock, guardTCP+"protocols h1 h2"))
	apptest.Load(t, doorText(https, knock, guardBoth))
	if page, err := getH3(t, "127.0.0.6", https, briefly); err == nil {
		t.Errorf("a stranger got %q", page)
	}
	// Once more: what was guarded and is gone is not taken for guarded.
	apptest.Load(t, doorText(https, knock, guardTCP+"protocols h1 h2"))
	apptest.Load(t, doorText(https, knock, ""))
	if err := apptest.TryLoad(t, doorText(https, knock, guardBoth)); err == nil {
		t.Error("a guard for an open socket that is not the former one was accepted")
	}
}
