// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"context"
	"net"

	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
	"github.com/caddy-knock/caddy-knock/l4knock/internal/relay"
)

// listenerCover is the cover of one connection: dialled when that comes, and
// relayed to if it turns out to be a stranger's.
type listenerCover struct {
	logger  *zap.Logger
	cancel  context.CancelFunc
	dialled chan struct{} // closed when conn and err are set
	conn    net.Conn
	err     error
}

// cover begins to dial the cover. A stranger who is with it stays there when the
// configuration changes, as with a proxy.
func (l *Listener) cover(context.Context) knockserver.Cover {
	ctx, cancel := context.WithCancel(context.Background())
	c := &listenerCover{logger: l.logger, cancel: cancel, dialled: make(chan struct{})}
	go func() {
		defer close(c.dialled)
		c.conn, _, c.err = relay.Dial(ctx, &relay.Options{Upstreams: []relay.Upstream{l.upstream}})
	}()
	return c
}

// Serve relays a stranger.
func (c *listenerCover) Serve(conn net.Conn, head []byte, err error) {
	defer c.cancel()
	<-c.dialled
	if c.err != nil {
		_ = conn.Close()
		c.logger.Error("connecting to the cover", zap.Error(c.err))
		return
	}
	if e := c.logger.Check(zap.DebugLevel, "not admitted"); e != nil {
		e.Write(zap.Stringer("remote", conn.RemoteAddr()), zap.Error(err))
	}
	relay.Run(context.Background(), conn, head, c.conn, new(relay.Options))
}

// Drop ends a dial that is not needed.
func (c *listenerCover) Drop() {
	c.cancel()
	go func() {
		<-c.dialled
		if c.conn != nil {
			_ = c.conn.Close()
		}
	}()
}
