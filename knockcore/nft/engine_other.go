// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux || 386 || arm || mips || mipsle

package nft

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Engine keeps services closed with nftables, which only Linux has: here every
// method fails with [ErrUnsupported].
type Engine struct{}

var errNoLinux = fmt.Errorf("nftables: %w: it needs Linux on a 64-bit processor, this is %s on %s", ErrUnsupported, runtime.GOOS, runtime.GOARCH)

// New fails.
func New(Config) (*Engine, error) { return nil, errNoLinux }

// Look fails.
func Look(context.Context, Config) (bool, error) { return false, errNoLinux }

// Remove fails.
func Remove(context.Context, Config) (bool, error) { return false, errNoLinux }

// Configure fails.
func (*Engine) Configure(Config) error { return errNoLinux }

// Warnings returns nothing.
func (*Engine) Warnings() []string { return nil }

// Setup fails.
func (*Engine) Setup(context.Context, []*knockcore.Service) error { return errNoLinux }

// Open fails.
func (*Engine) Open(context.Context, ...knockcore.Window) error { return errNoLinux }

// Close fails.
func (*Engine) Close(context.Context, ...knockcore.Window) error { return errNoLinux }

// List fails.
func (*Engine) List(context.Context) ([]knockcore.Window, error) { return nil, errNoLinux }

// Ban fails.
func (*Engine) Ban(context.Context, ...knockcore.Ban) error { return errNoLinux }

// Lift fails.
func (*Engine) Lift(context.Context, ...netip.Prefix) error { return errNoLinux }

// Banned fails.
func (*Engine) Banned(context.Context) ([]knockcore.Ban, error) { return nil, errNoLinux }

// Counts fails.
func (*Engine) Counts(context.Context) (map[string]Counts, error) { return nil, errNoLinux }

// Check fails.
func (*Engine) Check(context.Context) error { return errNoLinux }

// Heals returns 0.
func (*Engine) Heals() uint64 { return 0 }

// Stop does nothing.
func (*Engine) Stop(context.Context, knockcore.ExitMode) error { return nil }
