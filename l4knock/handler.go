// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/mholt/caddy-l4/layer4"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler reads the head of a TCP stream and decides: a valid authentication
// frame is consumed, its nonce is spent, the server proof is sent if the frame
// asks for it, and the stream goes to the handlers of `admit`. Everything else
// (no frame, one that is cut off, changed, old or replayed, silence, the end of
// the stream, too many undecided streams) goes on to the next handler, the
// cover, with all its bytes.
//
// Without `admit`, an admitted stream goes on to the next handler and everything
// else is closed: the form for routes behind the matcher of the same name.
//
// These placeholders are set for admitted streams: `{l4.vars.knock.client}`,
// `.service`, `.method`, `.session` and `.extensions` (hexadecimal), `.time`
// (Unix milliseconds) and `.grant`.
type Handler struct {
	Entrance

	// Admit are the handlers for admitted streams.
	AdmitRaw []json.RawMessage `json:"admit,omitempty" caddy:"namespace=layer4.handlers inline_key=handler"`

	admit     layer4.Handler
	strangers chan struct{}
	logger    *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "layer4.handlers.knock", New: func() caddy.Module { return new(Handler) }}
}

// Provision sets the handler up.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	if err := h.provisionEntrance(ctx); err != nil {
		return knockapp.Placed(h.At, err)
	}
	closeOrphans(ctx, h.app)
	if h.MaxStrangers <= 0 {
		h.MaxStrangers = knockserver.DefaultPending()
	}
	h.strangers = make(chan struct{}, h.MaxStrangers)
	if h.Cover != "" {
		if _, err := parseUpstream(h.Cover); err != nil {
			return knockapp.Placed(h.At, fmt.Errorf("cover: %w", err))
		}
	}
	if h.AdmitRaw == nil {
		if !h.app.Guarded(knockapp.ChoosesRoute) { // a route's matchers are provisioned before its handlers
			h.logger.Warn("knock has no `admit`: who is admitted goes to the next handler, and everybody else is closed without a cover; put the way to the service into `admit`, such as `admit { knock_relay 127.0.0.1:22 }`, and the cover behind",
				zap.String("at", h.At))
		}
		return nil
	}
	mods, err := ctx.LoadModule(h, "AdmitRaw")
	if err != nil {
		return knockapp.Placed(h.At, fmt.Errorf("loading the handlers of admit: %w", err))
	}
	var handlers layer4.Handlers
	for _, mod := range mods.([]any) {
		handlers = append(handlers, mod.(layer4.NextHandler))
	}
	h.admit = handlers.Compile()
	return nil
}

// Handle decides on a stream.
func (h *Handler) Handle(cx *layer4.Connection, next layer4.Handler) error {
	var cover *coverDial
	if h.Cover != "" {
		cover = h.dialCover()
		defer cover.discard()
	}
	gate, err := h.gatekeeper(h.checker.Wait)
	if err != nil {
		return h.stranger(cx, cover, next)
	}
	result := h.checker.Check(context.Background(), gate, cx, h.stream(cx, gate))
	cx = unread(cx, result.Rest)
	if result.Peer == nil {
		if c := h.logger.Check(zap.DebugLevel, "not admitted"); c != nil {
			c.Write(zap.Stringer("remote", cx.RemoteAddr()), zap.Error(result.Err))
		}
		return h.stranger(cx, cover, next)
	}
	cover.discard()
	stream, release := track(gate, cx.Conn, result.Peer)
	defer release()
	cx.SetVar(admittedVar, stream)
	setVars(cx, result.Peer)
	if h.admit == nil {
		return next.Handle(cx)
	}
	return h.admit.Handle(cx)
}

// stranger sends a stream to the cover. Behind a matcher there is none: it is
// closed, by returning.
func (h *Handler) stranger(cx *layer4.Connection, cover *coverDial, next layer4.Handler) error {
	if h.admit == nil && cover == nil {
		return nil
	}
	select {
	case h.strangers <- struct{}{}:
		defer func() { <-h.strangers }()
		if cover != nil {
			return cover.relay(cx)
		}
		return next.Handle(cx)
	default:
		h.logger.Debug("too many strangers at the cover", zap.Stringer("remote", cx.RemoteAddr()))
		return nil
	}
}

func setVars(cx *layer4.Connection, peer *knockserver.Peer) {
	cx.SetVar("knock.client", peer.Grant.Client)
	cx.SetVar("knock.service", peer.Grant.Service)
	cx.SetVar("knock.method", peer.Grant.Method.String())
	cx.SetVar("knock.session", hex.EncodeToString(peer.Grant.Session))
	cx.SetVar("knock.extensions", hex.EncodeToString(peer.Extensions))
	cx.SetVar("knock.time", peer.Time.UnixMilli())
	cx.SetVar("knock.grant", peer.Grant.ID.String())
}

// Interface guards
var (
	_ caddy.Provisioner  = (*Handler)(nil)
	_ layer4.NextHandler = (*Handler)(nil)
)
