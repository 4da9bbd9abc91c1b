// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package l4knock holds the layer4 modules of caddy-knock: authentication
// frames inside TCP streams, in front of any protocol.
package l4knock

import (
	"context"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/mholt/caddy-l4/layer4"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// Frames says which authentication frames are accepted: the part that the
// handler and the matcher share.
type Frames struct {
	// Methods lists the frames that are accepted: tcp-auth-envelope-v2,
	// tcp-auth-frame-v1. Default: tcp-auth-envelope-v2 alone; the older frame,
	// which can be recognised on the wire, must be named.
	Methods []string `json:"methods,omitempty"`

	// HintMode is route-hint or none, as the clients are configured. With none,
	// envelopes carry no hint of their client, and every secret is tried in every
	// size: few clients only. Default: route-hint.
	HintMode string `json:"hint_mode,omitempty"`

	// Buckets are the envelope sizes in bytes that are accepted. Default: 128, 192,
	// 256, 384, 512.
	Buckets []int `json:"buckets,omitempty"`

	// MaxAttempts bounds the decryptions tried for one stream. Default: 64.
	MaxAttempts int `json:"max_attempts,omitempty"`

	// Port is the port that frames must name: the one that clients dial, where it
	// is not the one that arrives here (NAT, port forwarding, several listeners).
	// Default: the connection's local port.
	Port uint16 `json:"port,omitempty"`

	app     *knockapp.App
	checker knockserver.Checker
}

// provision finds the knock app and checks the options.
func (f *Frames) provision(ctx caddy.Context) error {
	app, err := knockapp.Of(ctx)
	if err != nil {
		return err
	}
	f.app = app
	frames := wire.StreamConfig{
		Methods: knockcore.NewMethodSet(knockcore.MethodEnvelopeV2),
		Buckets: f.Buckets, MaxAttempts: f.MaxAttempts, Seen: f.seen,
	}
	if len(f.Methods) > 0 {
		frames.Methods = 0
		for _, name := range f.Methods {
			m, err := knockcore.ParseMethod(name)
			if err != nil {
				return fmt.Errorf("methods: %w", err)
			}
			frames.Methods |= knockcore.NewMethodSet(m)
		}
	}
	switch f.HintMode {
	case "", "route-hint":
	case "none":
		frames.HintNone = true
	default:
		return fmt.Errorf("hint_mode %q; expect route-hint or none", f.HintMode)
	}
	if err := frames.Validate(app.Keyring()); err != nil {
		return err
	}
	f.checker = knockserver.Checker{Frames: frames, Port: f.Port, Pending: app.Pending()}
	return nil
}

// seen asks the live state, once there is one.
func (f *Frames) seen(key knockcore.ReplayKey) bool {
	gate := f.app.Running()
	return gate != nil && gate.State().Store.Seen(key)
}

// streamKey tells whose look at a connection may be continued.
type streamKey struct {
	ring *knockcore.Keyring
	port uint16
	f    *Frames
}

// look is a matcher's look at the head of a connection, kept with it, so that a
// sender who comes byte by byte costs one scan.
type look struct {
	key    streamKey
	stream wire.Stream
}

// lookVar is the connection variable that holds the looks, by their key.
const lookVar = "knock.looks"

// stream returns the look of f at the connection, a new one if there is none or
// the clients have changed since.
func (f *Frames) stream(cx *layer4.Connection, gate *knockcore.Gatekeeper) *wire.Stream {
	key := streamKey{gate.Keyring(), f.checker.PortOf(cx), f}
	looks, _ := cx.GetVar(lookVar).([]*look)
	for _, l := range looks {
		if l.key == key {
			return &l.stream
		}
	}
	l := &look{key: key, stream: f.checker.Frames.NewStream(key.ring, key.port)}
	l.stream.From(knockserver.AddrPortOf(cx.RemoteAddr()).Addr())
	cx.SetVar(lookVar, append(looks, l))
	return &l.stream
}

// gatekeeper waits for the app to start, as long as a frame may take.
func (f *Frames) gatekeeper(wait time.Duration) (*knockcore.Gatekeeper, error) {
	if gate := f.app.Running(); gate != nil {
		return gate, nil
	}
	if wait <= 0 {
		wait = knockserver.DefaultWait
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	return f.app.Gatekeeper(ctx)
}
