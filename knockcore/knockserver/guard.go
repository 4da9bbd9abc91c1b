// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Guard decides on connections and says what becomes of each: what [Server] and
// Caddy's listener wrapper share. It must not change after use.
type Guard struct {
	// Checker decides.
	Checker *Checker
	// Gatekeeper finds the gatekeeper for a connection. It may wait for one as long
	// as ctx lasts; without one, nobody is let in.
	Gatekeeper func(ctx context.Context) (*knockcore.Gatekeeper, error)
	// Policy, if set, is asked before anything is read from a connection; false
	// closes it.
	Policy func(remote net.Addr) bool
	// Cover, if set, is called for each connection when it has come, and says what
	// it gets if it is refused. ctx is done when the listener is closed, unless Late
	// is set. Without a Cover, what a stranger sends is ignored until Checker.Wait
	// after it came, then it is closed: all strangers look alike.
	Cover func(ctx context.Context) Cover
	// MaxStrangers bounds the strangers of one listener that are with the cover, or
	// ignored; others are closed. 0 means DefaultPending().
	MaxStrangers int
	// Late, if set, makes a listener's Close a gentle one: streams that are
	// undecided then are decided all the same, and Late gets those admitted too late
	// to be accepted. If it returns false, they are closed. It is for handing them
	// to the listener that comes next.
	Late func(net.Conn) bool
	// Failed, if set, is told of errors of Accept that the listener gets over.
	Failed func(error)
}

// Cover is what one connection gets that is not let in. One of its methods is
// called, once.
type Cover interface {
	// Serve serves a stranger and closes the connection. head was read from it; err
	// says why it is one.
	Serve(conn net.Conn, head []byte, err error)
	// Drop gives up a cover that is not needed.
	Drop()
}

// admit reads the head of a connection, if the policy lets it.
func (g *Guard) admit(ctx context.Context, raw net.Conn) (*knockcore.Gatekeeper, Result) {
	gate, err := g.Gatekeeper(ctx)
	if err != nil {
		return nil, Result{Err: fmt.Errorf("%w: %w", knockcore.ReasonStoreError, err)}
	}
	if g.Policy != nil && !g.Policy(raw.RemoteAddr()) {
		err := &knockcore.Refusal{Reason: knockcore.ReasonLimited, Detail: "the policy refuses the address"}
		gate.Refuse(methodOf(g.Checker.Frames.Methods, nil), AddrPortOf(raw.RemoteAddr()).Addr(), err)
		return gate, Result{Err: err, barred: true}
	}
	return gate, g.Checker.Check(ctx, gate, raw, nil)
}

// track keeps a connection on the books until release is called: it is closed if
// its grant is revoked, or over and its service wants that.
func track(gate *knockcore.Gatekeeper, grant *knockcore.Grant, raw net.Conn) (release func()) {
	untrack := gate.State().Track(grant, AddrPortOf(raw.RemoteAddr()), func() { _ = raw.Close() })
	if s := gate.Service(grant.Service); s == nil || !s.CutOnExpire {
		return untrack
	}
	timer := time.AfterFunc(grant.Remaining(gate.Now()), func() {
		_, _ = gate.Revoke(context.Background(), grant.ID, "expired")
	})
	return func() {
		timer.Stop()
		untrack()
	}
}

// silence is the cover of those who have none: it says nothing.
type silence struct {
	ctx   context.Context
	until time.Time
}

// Serve reads until the time is up or the stranger goes.
func (s silence) Serve(conn net.Conn, _ []byte, _ error) {
	defer conn.Close()
	if conn.SetReadDeadline(s.until) != nil {
		return
	}
	defer context.AfterFunc(s.ctx, func() { _ = conn.Close() })()
	_, _ = io.Copy(io.Discard, conn)
}

// Drop does nothing.
func (silence) Drop() {}
