// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"net/netip"
	"time"
)

// Window is an opening in a firewall: a prefix may reach a service until it
// expires.
type Window struct {
	Prefix  netip.Prefix
	Service string
	Expires time.Time
}

// Firewall makes windows real. Calls may come from many goroutines and carry a
// deadline.
type Firewall interface {
	// Setup closes the services and adopts the windows that a former process
	// left. It is idempotent; a changed list of services replaces the old one
	// without a moment in which a service stands open or a window of a remaining
	// service is lost.
	Setup(ctx context.Context, services []*Service) error
	// Open adds windows, or moves the expiry (later or sooner) of equal ones.
	Open(ctx context.Context, windows ...Window) error
	// Close ends windows; absent ones are not an error.
	Close(ctx context.Context, windows ...Window) error
	// List tells what is really open.
	List(ctx context.Context) ([]Window, error)
	// Stop ends the firewall's work and leaves things as mode says.
	Stop(ctx context.Context, mode ExitMode) error
}

// ExitMode is what a firewall leaves behind. No mode but ExitRemove opens what
// was closed.
type ExitMode uint8

// The exit modes.
const (
	ExitClose  ExitMode = iota // ends windows; services stay closed
	ExitKeep                   // lets windows run out; services stay closed
	ExitRemove                 // takes everything of ours away
)
