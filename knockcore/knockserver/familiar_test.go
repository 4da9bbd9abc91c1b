// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

// TestFamiliar: the address that a frame was admitted from is familiar, that of a
// replayed one is not.
func TestFamiliar(t *testing.T) {
	ln, s := listen(t), server(t, knockserver.Config{Clients: clients(t, "alice", "bob", "carol")})
	known := func(addr string) bool {
		ring, scratch, msg := s.Gatekeeper().Keyring(), knockcore.NewMACScratch(), []byte("a message")
		cred := &ring.Credentials()[0]
		hint := append([]byte(nil), cred.MAC.Sum(scratch, msg)[:knockcore.HintLen]...)
		return len(ring.Familiar(netip.MustParseAddr(addr), scratch, msg, hint, nil)) == 1
	}
	b := frame(t, port(ln), nil)
	if _, _, _, err := authenticated(t, s, ln, b); err != nil || !known("127.0.0.1") {
		t.Fatalf("%v; the address is familiar: %v", err, known("127.0.0.1"))
	}
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Skip("127.0.0.2 is no address here: ", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	raw := accept(t, ln)
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Auth(t.Context(), raw); err == nil || known("127.0.0.2") {
		t.Errorf("%v; the address of a replay is familiar: %v", err, known("127.0.0.2"))
	}
}
