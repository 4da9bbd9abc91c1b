// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"net/netip"
	"time"
)

// EventKind says what happened.
type EventKind uint8

// The kinds of events.
const (
	EventGranted EventKind = iota + 1 // a knock became a grant, or renewed one
	EventRefused                      // a knock was refused
	EventExpired                      // a grant ran out
	EventRevoked                      // a grant was ended before its time
	EventBanned                       // an address was banned
)

// String returns "granted", "refused", "expired", "revoked" or "banned".
func (k EventKind) String() string {
	switch k {
	case EventGranted:
		return "granted"
	case EventRefused:
		return "refused"
	case EventExpired:
		return "expired"
	case EventRevoked:
		return "revoked"
	case EventBanned:
		return "banned"
	default:
		return ""
	}
}

// Event is what the gatekeeper tells its observer.
type Event struct {
	Kind   EventKind
	Method Method
	// Source is where the knock came from, or the address that was banned.
	Source netip.Addr
	// Node is the node of a fleet at which it happened, "" for this one.
	Node string
	// Grant is set for all kinds but EventRefused and EventBanned.
	Grant *Grant
	// Renewed says that EventGranted moved the expiry of an older grant.
	Renewed bool
	// Err is why a knock was refused: a *Refusal or a Reason.
	Err error
	// Until is when a ban ends.
	Until time.Time
	// By is why a grant was revoked: "admin", "client removed", …
	By string
}

// Observer is called for each event, on the goroutine that caused it: it must
// be quick and must not call back. A nil Observer is allowed.
type Observer func(Event)

func (o Observer) tell(e Event) {
	if o != nil {
		o(e)
	}
}
