// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// TestEarlyData: what comes before the handshake is complete may be a replay from
// anywhere, so it neither knocks nor matches.
func TestEarlyData(t *testing.T) {
	address := site(t, "", adminClient, "")
	m, r := matcher(t)
	r.TLS = &tls.ConnectionState{}
	var status caddyhttp.HandlerError
	if ok, err := m.MatchWithError(r); ok || !errors.As(err, &status) || status.StatusCode != http.StatusTooEarly {
		t.Errorf("matcher: %v, %v", ok, err)
	}
	r.TLS.HandshakeComplete = true
	if _, err := m.MatchWithError(r); err != nil {
		t.Error(err)
	}
	if status, _ := knockAs(t, address, "127.0.0.5", adminKey, "", "Early-Data", "1"); status != http.StatusTooEarly {
		t.Errorf("knock: %d", status)
	}
	if status, _ := get(t, address, "127.0.0.5", "/verify"); status != http.StatusUnauthorized {
		t.Errorf("verify: %d", status)
	}
}

// TestDoorBehindProxyProtocol: the door goes by the address that the proxy names,
// and a silent connection does not keep others out.
func TestDoorBehindProxyProtocol(t *testing.T) {
	guarded, knock := program.FreePort(t), program.FreePort(t)
	text := fmt.Sprintf(`{
	admin off
	persist_config off
	log {
		level ERROR
	}
	servers :%d {
		listener_wrappers {
			proxy_protocol {
				allow 127.0.0.0/8
			}
			knocked {
				services web
				allow 198.51.100.0/24
			}
		}
	}
	knock {
		store memory
		client admin {
			api_key %s
			services web
			allow_remote /24 /64
		}
		service web tcp/%d
	}
}
http://:%d {
	respond "behind the door"
}
http://:%d {
	knock
}
`, guarded, adminKey, guarded, guarded, knock)
	apptest.Load(t, text)
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", guarded))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(enough))
		return conn
	}
	ask := func(source string) string {
		conn := dial()
		fmt.Fprintf(conn, "PROXY TCP4 %s 192.0.2.1 4711 80\r\nGET / HTTP/1.0\r\n\r\n", source)
		b, _ := io.ReadAll(conn)
		return string(b)
	}
	dial() // says nothing
	if answer := ask("203.0.113.7"); answer != "" {
		t.Errorf("a stranger got %q", answer)
	}
	if answer := ask("198.51.100.9"); !strings.HasSuffix(answer, "behind the door") {
		t.Errorf("who is always allowed got %q", answer)
	}
	// The knock comes from this host, and is for another.
	knockOK(t, fmt.Sprintf("127.0.0.1:%d", knock), "127.0.0.5", adminKey, `{"ip_address":"203.0.113.7"}`)
	if answer := ask("203.0.113.7"); !strings.HasSuffix(answer, "behind the door") {
		t.Errorf("who was let in got %q", answer)
	}
	if status, answer := knockAs(t, fmt.Sprintf("127.0.0.1:%d", knock), "127.0.0.5", adminKey, ""); status != 400 || !strings.Contains(answer, "client IP") {
		t.Errorf("a knock for this host itself: %d %s", status, answer)
	}
}
