// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

// TestFailedKnockLeavesWhatWas: a knock for several services that fails at the last
// takes away what it made, and leaves what it renewed as it was.
func TestFailedKnockLeavesWhatWas(t *testing.T) {
	g := newGateTest(t, nil)
	source := netip.MustParseAddr("203.0.113.7")
	both := func(k *Knock) {
		k.Method, k.Replay, k.Ports, k.Services = MethodHTTP, ReplayKey{}, nil, []string{"web", "ssh"}
	}
	web := func(k *Knock) { both(k); k.Services, k.Length = []string{"web"}, time.Hour }
	first, err := g.Admit(t.Context(), g.knock("alice", web))
	if err != nil {
		t.Fatal(err)
	}
	g.fw.fail = errors.New("out of order")
	if _, err := g.Admit(t.Context(), g.knock("alice", func(k *Knock) { both(k); k.Length = time.Minute })); ReasonOf(err) != ReasonFirewallError {
		t.Fatal(err)
	}
	grants := g.State().Grants(nil)
	if len(grants) != 1 || grants[0].ID != first[0].ID || !grants[0].Expires.Equal(first[0].Expires) {
		t.Errorf("%+v instead of %+v", grants, first[0])
	}
	if !NewQuery([]string{"web"}, nil).Match(g.State().Table, source) {
		t.Error("what was acknowledged is gone")
	}
	if _, err := g.Admit(t.Context(), g.knock("bob", both)); err == nil || g.State().Len() != 1 {
		t.Errorf("%v, %d grants stand", err, g.State().Len())
	}
}

// TestClientsShareGrants: a client that knocks from ever new addresses takes no more
// than its part; others, and itself where it renews, still get theirs.
func TestClientsShareGrants(t *testing.T) {
	g := newGateTest(t, func(c *Config) {
		clients := c.Keyring.Clients()
		alice := *clients[0]
		alice.MaxGrants = 3
		ring, err := NewKeyring(append([]*Client{&alice}, clients[1:]...))
		if err != nil {
			t.Fatal(err)
		}
		c.Keyring = ring
	})
	knock := func(client string, last byte, services ...string) error {
		_, err := g.Admit(t.Context(), g.knock(client, func(k *Knock) {
			k.Method, k.Replay, k.Source = MethodHTTP, ReplayKey{}, netip.AddrFrom4([4]byte{203, 0, 113, last})
			k.Ports, k.Services = nil, services
		}))
		return err
	}
	if err := errors.Join(knock("alice", 1, "ssh", "web"), knock("alice", 2, "ssh"), knock("alice", 1, "ssh", "web")); err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		if err := knock("alice", byte(10+n), "ssh"); ReasonOf(err) != ReasonLimited {
			t.Fatalf("a grant too many: %v", err)
		}
	}
	if n := g.State().Len(); n != 3 || len(g.fw.windows) != 2 {
		t.Errorf("%d grants, windows %v", n, g.fw.windows)
	}
	if err := errors.Join(knock("bob", 3, "ssh"), knock("alice", 2, "ssh")); err != nil {
		t.Errorf("somebody else, and renewing: %v", err)
	}
	if _, err := g.Admit(t.Context(), g.knock("alice", func(k *Knock) { k.Method = MethodEnvelopeV2 })); err != nil {
		t.Errorf("a stream: %v", err)
	}
	if _, err := g.GrantByHand(t.Context(), "alice", "web", netip.MustParsePrefix("198.51.100.1/32"), time.Hour); err != nil {
		t.Errorf("by hand: %v", err)
	}
	for _, grant := range g.State().Grants(func(grant *Grant) bool { return grant.Client == "alice" }) {
		if _, err := g.Revoke(t.Context(), grant.ID, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(knock("alice", 4, "ssh", "web"), knock("alice", 5, "ssh")); err != nil {
		t.Errorf("when others have ended: %v", err)
	}
	if (&Client{}).maxGrants() >= DefaultMaxGrants/100 {
		t.Error("by default one client may take a great part of all grants")
	}
}

// TestMaxGrants: a bound of one method counts its own grants only, lets renew, and
// has room again when a grant ends.
func TestMaxGrants(t *testing.T) {
	g := newGateTest(t, nil)
	knock := func(last byte) error {
		_, err := g.Admit(t.Context(), g.knock("alice", func(k *Knock) {
			k.Method, k.Replay, k.MaxGrants, k.Source = MethodHTTP, ReplayKey{}, 2, netip.AddrFrom4([4]byte{203, 0, 113, last})
		}))
		return err
	}
	if _, err := g.Admit(t.Context(), g.knock("alice", nil)); err != nil { // by datagram
		t.Fatal(err)
	}
	if err := errors.Join(knock(1), knock(2), knock(1), knock(2)); err != nil {
		t.Fatal(err)
	}
	if err := knock(3); ReasonOf(err) != ReasonLimited {
		t.Errorf("a grant too many: %v", err)
	}
	// A grant by datagram that HTTP renews is HTTP's.
	if err := knock(7); ReasonOf(err) != ReasonNone {
		t.Errorf("renewing a grant of another method: %v", err)
	}
	for _, grant := range g.State().Grants(func(grant *Grant) bool {
		return grant.Source == netip.MustParseAddr("203.0.113.1") || grant.Source == netip.MustParseAddr("203.0.113.7")
	}) {
		if _, err := g.Revoke(t.Context(), grant.ID, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if err := knock(3); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

// TestRefund: a use that came to nothing is there again.
func TestRefund(t *testing.T) {
	now, addr := time.Now(), netip.MustParseAddr("192.0.2.1")
	for _, fixed := range []bool{false, true} {
		l := NewLimiter(LimitConfig{Uses: 2, Every: time.Minute, Fixed: fixed})
		l.Refund(addr, MethodHTTP, now) // nothing to give back
		for range 5 {
			if !l.Take(addr, MethodHTTP, now) {
				t.Fatalf("fixed %v: no use left", fixed)
			}
			l.Refund(addr, MethodHTTP, now)
		}
		l.Take(addr, MethodHTTP, now)
		l.Take(addr, MethodHTTP, now)
		if l.Take(addr, MethodHTTP, now) {
			t.Errorf("fixed %v: refunds made uses", fixed)
		}
	}
}

func TestAPIKeys(t *testing.T) {
	for key, ok := range map[string]bool{
		"0123456789abcdef": true, "0123456789abcde": false, "a key with blanks inside": true, " 0123456789abcdef": false,
		"0123456789abcdef\n": false, "clé-0123456789abcdef": false, "please-Change_Me-please": false, "replace_with_a_real_key": false, "": false,
	} {
		if err := ValidateAPIKey(key); (err == nil) != ok {
			t.Errorf("%q: %v", key, err)
		}
	}
	for key, bits := range map[string]int{"0123456789abcdef0123456789abcdef": 128, "0123456789": 33, "AAAA-aaaa_0000-zzzzZZZ": 132, "": 0} {
		if got := APIKeyBits(key); got != bits {
			t.Errorf("%q has %d bits, not %d", key, got, bits)
		}
	}
	sum := HashAPIKey("0123456789abcdef")
	if parsed, err := ParseAPIKeyHash(APIKeyHashText(sum)); err != nil || parsed != sum {
		t.Error(err)
	}
	for _, bad := range []string{"", "sha256:", "sha256:00", APIKeyHashText(sum)[7:], APIKeyHashText(sum) + "00", "sha1:" + APIKeyHashText(sum)[7:]} {
		if _, err := ParseAPIKeyHash(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	ring, err := NewKeyring([]*Client{{ID: "a", APIKeyHashes: [][32]byte{sum}}})
	if err != nil {
		t.Fatal(err)
	}
	if c := ring.ClientByAPIKey("0123456789abcdef"); c == nil || c.ID != "a" || ring.APIKeys() != 1 {
		t.Error("the key finds nobody")
	}
	if ring.ClientByAPIKey("0123456789abcdeF") != nil || ring.ClientByAPIKey("") != nil {
		t.Error("another key finds somebody")
	}
}
