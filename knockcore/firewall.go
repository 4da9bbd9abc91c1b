// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Window is an opening in a firewall: whoever is in Prefix reaches the service
// until Expires. Windows are equal if prefix and service are; which grants keep
// a window open is the gatekeeper's business.
type Window struct {
	// Prefix is whom it opens for: an address (/32, /128) or wider.
	Prefix netip.Prefix
	// Service is the name of the service.
	Service string
	// Expires is when it closes. Windows to open must have it; a listed window
	// without it was opened by somebody else, for good.
	Expires time.Time
	// Client is whose knock opened it or moved its end, "" if that is unknown. It is
	// there for commands and logs; windows of different clients are not different.
	Client string
}

// Firewall keeps services closed but for windows. All methods may be called
// concurrently. They return when the kernel, or whoever keeps the windows, has
// done what was asked, or with the error of exactly that call.
type Firewall interface {
	// Setup closes the services. It is idempotent; it adopts what an earlier
	// process left, and a changed list takes effect without a moment in which
	// anything is open that should not be, or closed that should not be: windows
	// of services that remain stay.
	Setup(ctx context.Context, services []*Service) error
	// Open opens windows, and moves the expiry of those that are open, to later
	// or to sooner. All windows of one call open, or it returns an error.
	Open(ctx context.Context, windows ...Window) error
	// Close closes windows. To close what is not open is no error.
	Close(ctx context.Context, windows ...Window) error
	// List returns the windows that are really open, in no order.
	List(ctx context.Context) ([]Window, error)
	// Stop ends the firewall's work; services stay closed unless mode is
	// ExitRemove. Calling it again, or without Setup, does nothing.
	Stop(ctx context.Context, mode ExitMode) error
}

// Checker is a Firewall that can tell whether it still stands as set up.
type Checker interface {
	Check(ctx context.Context) error
}

// Healer is a Firewall that mends what others break, and counts it.
type Healer interface {
	// Heals is how often it was broken and mended.
	Heals() uint64
}

// Troubled is a Firewall whose windows can be open although something went wrong
// with them: a command that failed, say.
type Troubled interface {
	// Trouble is what went wrong, nil if nothing did.
	Trouble(w Window) error
}

// Wall is a Firewall that also keeps banned prefixes out of ports that it was
// configured with, but not who has a window in it, whatever the service.
type Wall interface {
	Firewall
	// Ban keeps the prefixes out until their bans end, whether we live or not; a
	// prefix that is kept out already gets the new end.
	Ban(ctx context.Context, bans ...Ban) error
	// Lift ends the bans of exactly these prefixes; those that have none are no
	// error.
	Lift(ctx context.Context, prefixes ...netip.Prefix) error
	// Banned returns who is really kept out, and until when.
	Banned(ctx context.Context) ([]Ban, error)
}

// Cutter ends flows that were established while a grant lived.
type Cutter interface {
	// Cut ends the flows from the prefix to the service soon, but for those that
	// State.Holds. It does not wait, and must not call the gatekeeper back from this
	// goroutine.
	Cut(prefix netip.Prefix, service *Service)
}

// ExitMode says what becomes of a firewall when we stop.
type ExitMode uint8

// The modes.
const (
	// ExitClose ends all windows; services stay closed.
	ExitClose ExitMode = iota
	// ExitKeep lets windows run out; services stay closed.
	ExitKeep
	// ExitRemove takes everything of ours away; services are open to everybody.
	ExitRemove
)

var exitModeNames = [...]string{"close", "keep", "remove"}

// String returns "close", "keep" or "remove".
func (m ExitMode) String() string {
	if int(m) < len(exitModeNames) {
		return exitModeNames[m]
	}
	return "unknown"
}

// ParseExitMode reads what String writes.
func ParseExitMode(s string) (ExitMode, error) {
	for i, name := range exitModeNames {
		if s == name {
			return ExitMode(i), nil
		}
	}
	return 0, fmt.Errorf("unknown exit mode %q; expect close, keep or remove", s)
}
