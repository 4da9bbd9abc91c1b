// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"context"
	"fmt"
	"net"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
	"github.com/caddy-knock/caddy-knock/l4knock/internal/relay"
)

func init() { caddy.RegisterModule(new(Listener)) }

// Listener asks for an authentication frame at the head of every connection of a
// Caddy server, before TLS. Behind it, everything is as without it: HTTP/1, HTTP/2
// and gRPC work, and strangers see neither a certificate nor an HTTP answer. It
// must stand before the wrapper `tls`.
//
// Connections without a valid frame go to the cover if there is one. Without a
// cover, what they send is ignored, and all are closed at the same time after they
// came, whatever they sent.
//
// HTTP/3 runs over UDP and would go past it: loading fails if a server that is
// wrapped serves it. When a client is removed or its grant revoked, its
// connections are cut.
type Listener struct {
	Entrance

	guard    knockserver.Guard
	upstream relay.Upstream
	logger   *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (*Listener) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.listeners.knock", New: func() caddy.Module { return new(Listener) }}
}

// Provision sets the wrapper up.
func (l *Listener) Provision(ctx caddy.Context) error {
	l.logger = ctx.Logger()
	return knockapp.Placed(l.At, l.set(ctx))
}

func (l *Listener) set(ctx caddy.Context) error {
	if err := l.provisionEntrance(ctx); err != nil {
		return err
	}
	if err := checkServer(ctx, l.Port); err != nil {
		return err
	}
	l.guard = knockserver.Guard{
		Checker:      &l.checker,
		Gatekeeper:   func(context.Context) (*knockcore.Gatekeeper, error) { return l.gatekeeper(l.checker.Wait) },
		MaxStrangers: l.MaxStrangers,
		Failed:       func(err error) { l.logger.Warn("accepting", zap.Error(err)) },
	}
	if l.Cover == "" {
		return nil
	}
	cover, err := caddy.NewReplacer().ReplaceOrErr(l.Cover, true, true)
	if err == nil {
		l.upstream, err = parseUpstream(cover)
	}
	if err != nil {
		return fmt.Errorf("cover: %w", err)
	}
	l.guard.Cover = l.cover
	return nil
}

// WrapListener puts the guard in front of a listener.
func (l *Listener) WrapListener(ln net.Listener) net.Listener {
	key := l.doorKey(ln)
	guard := l.guard
	guard.Late = func(conn net.Conn) bool { return offer(key, conn) }
	return openDoor(key, guard.Listen(ln))
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Listener)(nil)
	_ caddy.ListenerWrapper = (*Listener)(nil)
)
