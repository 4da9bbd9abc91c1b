// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import "errors"

// The errors that callers can tell apart, by errors.Is.
var (
	// ErrPermission means that the process may not change nftables; the message
	// says how to give it the right.
	ErrPermission = errors.New("no permission to change nftables")
	// ErrUnsupported means that this system, or its kernel, lacks what is needed.
	ErrUnsupported = errors.New("not supported by this system")
	// ErrForeign means that a table of our name is not ours. It is left alone.
	ErrForeign = errors.New("the table was not made by caddy-knock")
	// ErrBusy means that another engine, here or in another process that runs,
	// owns the table.
	ErrBusy = errors.New("the table is in use by another caddy-knock")
	// ErrStopped means that the engine was stopped, or never set up.
	ErrStopped = errors.New("the firewall is not running")
	// ErrUnknownService means that a window is for a service that the firewall
	// was not set up with.
	ErrUnknownService = errors.New("unknown service")
	// ErrExpired means that a window to open is over already.
	ErrExpired = errors.New("the window is over already")
	// ErrFull means that a set takes no more elements.
	ErrFull = errors.New("the set is full")
	// ErrLost means that the kernel took windows without an error and does not
	// have them.
	ErrLost = errors.New("the kernel lost windows")
	// ErrSet means that a set of the operator's cannot hold the window.
	ErrSet = errors.New("the set cannot hold the window")
)

var errOwnSetsPrint = errors.New("windows go to sets of yours: there is no rule set to print")
