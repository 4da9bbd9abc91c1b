// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// TestOvertaken: somebody on the path delivers a captured knock from his own address
// before its client does. Where the address stands under the seal he gets nothing,
// and does not spoil the knock. Where it does not, he gets what the README's Limits
// say, and the client nothing.
func TestOvertaken(t *testing.T) {
	a := alice()
	thief := netip.MustParseAddrPort("203.0.113.99:4000")
	for name, c := range map[string]struct {
		payload func(*guard) []byte
		named   bool
	}{
		"pyknock": {func(g *guard) []byte {
			return pyknockOf(t, a, wire.Pyknock{Addr: stranger.Addr(), Time: wire.PyknockTime(g.now)})
		}, true},
		"fwknop -a": {func(g *guard) []byte {
			return fwknopOf(t, a, wire.Fwknop{Type: wire.FwknopAccess, Allow: stranger.Addr(), Ports: ports(t, "tcp/22"), Time: g.now.Unix()})
		}, true},
		"fwknop -s": {func(g *guard) []byte {
			return fwknopOf(t, a, wire.Fwknop{Type: wire.FwknopAccess, Allow: netip.IPv4Unspecified(), Ports: ports(t, "tcp/22"), Time: g.now.Unix()})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuard(t, setup{clients: []*knockcore.Client{a}, services: services()})
			payload := c.payload(g)
			first, second := g.send(thief, payload), g.send(stranger, payload)
			want := thief
			if c.named {
				want = stranger
				if !errors.Is(first, knockcore.ReasonForbidden) || second != nil {
					t.Errorf("the thief: %v, the client: %v", first, second)
				}
			} else if first != nil || !errors.Is(second, knockcore.ReasonReplay) {
				t.Errorf("the thief: %v, the client: %v", first, second)
			}
			for _, grant := range g.granted() {
				if grant.Prefix != knockcore.AddrPrefix(want.Addr()) {
					t.Errorf("a grant for %v", grant.Prefix)
				}
			}
		})
	}
}
