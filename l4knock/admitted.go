// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/mholt/caddy-l4/layer4"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

// admittedVar is the connection variable that holds the *admitted.
const admittedVar = "knock.admitted"

// admitted is an admitted stream while its handlers run: it is on the books of
// the live state, which ends it if its grant is revoked.
type admitted struct {
	peer *knockserver.Peer

	mu  sync.Mutex
	cut func() // how to end it; the connection is closed if nobody knows better
}

// track puts a stream on the books until release is called. If its service cuts
// at expiry, it is ended then.
func track(gate *knockcore.Gatekeeper, conn net.Conn, peer *knockserver.Peer) (a *admitted, release func()) {
	a = &admitted{peer: peer, cut: func() { _ = conn.Close() }}
	grant := peer.Grant
	untrack := gate.State().Track(grant, knockserver.AddrPortOf(conn.RemoteAddr()), a.end)
	if s := gate.Service(grant.Service); s == nil || !s.CutOnExpire {
		return a, untrack
	}
	timer := time.AfterFunc(time.Until(grant.Expires), func() {
		_, _ = gate.Revoke(context.Background(), grant.ID, "expired")
	})
	return a, func() {
		timer.Stop()
		untrack()
	}
}

// end ends the stream.
func (a *admitted) end() {
	a.mu.Lock()
	cut := a.cut
	a.mu.Unlock()
	cut()
}

// onCut says how to end the stream from now on.
func (a *admitted) onCut(cut func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cut = cut
}

// admittedOf returns the stream that a handler before admitted, nil if none did.
func admittedOf(cx *layer4.Connection) *admitted {
	a, _ := cx.GetVar(admittedVar).(*admitted)
	return a
}
