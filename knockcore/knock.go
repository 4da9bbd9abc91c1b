// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"net/netip"
	"time"
)

// Action is what a knock asks for.
type Action uint8

// The actions.
const (
	ActionOpen Action = iota
	ActionClose
)

// Knock is a verified frame: decoded and authentic. Whether it is in time, new
// and allowed is for the gatekeeper to say.
type Knock struct {
	// Client is whose frame it is.
	Client *Client
	Method Method
	Action Action
	// Source is where the frame came from.
	Source netip.Addr
	// For is the address or prefix that the knock is for; the zero Prefix means
	// the source.
	For netip.Prefix
	// Services names what to open. If it is empty, Ports does; if that is empty
	// too, everything that the client may reach.
	Services []string
	Ports    []PortRange
	// Length is how long it asks to open, 0 if it doesn't say.
	Length time.Duration
	// Session ties a knock to a later TCP frame; nil if there is none.
	Session []byte
	// Device names the device that knocks, of those that share a client; "" if it is
	// not known. See Grant.Device.
	Device string
	// Time is the frame's authenticated timestamp, zero if the method has none.
	Time time.Time
	// Window is how far Time may lie off, 0 for the gatekeeper's own.
	Window time.Duration
	// Replay identifies the frame, zero if the method has no replay protection of
	// ours (HTTP, where TLS has).
	Replay ReplayKey
	// MaxGrants bounds the live grants that this method has made: one more is
	// refused, but those that are there may be renewed. 0 means no bound of its own.
	MaxGrants int
}
