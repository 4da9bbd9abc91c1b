// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"net/netip"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// TestFamiliar: an address is familiar with a client once it was admitted from
// there, and no longer than these clients are configured.
func TestFamiliar(t *testing.T) {
	clients := crowd(3)
	g := newGuard(t, setup{clients: clients, services: services()})
	scratch, last := knockcore.NewMACScratch(), clients[2]
	known := func(addr netip.Addr) bool {
		ring, msg := g.gate.Keyring(), []byte("a message")
		for _, cred := range ring.Credentials() {
			hint := cred.MAC.Sum(scratch, msg)
			if found := ring.Familiar(addr, scratch, msg, append([]byte(nil), hint[:knockcore.HintLen]...), nil); len(found) != 0 {
				return found[0].Client == last
			}
		}
		return false
	}
	knock := frame(t, last, wire.Datagram{Method: knockcore.MethodUDP, Port: 22, Time: g.gate.Now().UnixMilli()})
	if err := g.send(stranger, knock); err != nil {
		t.Fatal(err)
	}
	if !known(stranger.Addr()) {
		t.Error("the address of a client that was admitted is not familiar")
	}
	other := netip.MustParseAddrPort("192.0.2.67:1")
	for what, b := range map[string][]byte{
		"replayed": knock,
		"stale":    frame(t, last, wire.Datagram{Method: knockcore.MethodUDP, Port: 22, Time: g.gate.Now().UnixMilli() - 3_600_000}),
	} {
		if err := g.send(other, b); err == nil || known(other.Addr()) {
			t.Errorf("%s: %v, and the address is familiar: %v", what, err, known(other.Addr()))
		}
	}
	ring, err := knockcore.NewKeyring(clients)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.gate.SetKeyring(t.Context(), ring); err != nil || known(stranger.Addr()) {
		t.Errorf("%v; another keyring knows the address: %v", err, known(stranger.Addr()))
	}
}
