// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"crypto/sha256"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/device"
)

// TestWithDevices: clients of a file are in one keyring after the other, and keys of
// devices only in those that they were known for.
func TestWithDevices(t *testing.T) {
	a := new(App)
	a.devices.known.Store(&map[[sha256.Size]byte]device.Device{{1}: {Client: "alice"}, {2}: {Client: "alice"}, {3}: {Client: "nobody"}, {4}: {Client: "alice"}})
	own := make([][sha256.Size]byte, 1, 8)
	own[0] = [sha256.Size]byte{4} // a device's as well
	alice, bob := &knockcore.Client{ID: "alice", APIKeyHashes: own}, &knockcore.Client{ID: "bob"}
	clients := []*knockcore.Client{bob, alice}
	a.withDevices(clients)
	if n := len(clients[1].APIKeyHashes); n != 3 {
		t.Errorf("alice has %d keys", n)
	}
	if clients[0] != bob || len(bob.APIKeyHashes) != 0 {
		t.Error("bob was changed")
	}
	if len(alice.APIKeyHashes) != 1 || own[:2][1] != ([sha256.Size]byte{}) {
		t.Error("the client itself has keys of devices")
	}
}
