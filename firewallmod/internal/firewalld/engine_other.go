// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package firewalld

import (
	"context"
	"fmt"
	"runtime"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
)

// Engine keeps services closed with firewalld, which only Linux has.
type Engine struct{ *engine.Engine }

var errNoLinux = fmt.Errorf("firewalld: %w: it needs Linux, this is %s", engine.ErrUnsupported, runtime.GOOS)

// New fails.
func New(Config) (*Engine, error) { return nil, errNoLinux }

// Configure fails.
func (*Engine) Configure(Config) error { return errNoLinux }

// Warnings returns nothing.
func (*Engine) Warnings() []string { return nil }

// Look fails.
func Look(context.Context, Config) (bool, error) { return false, errNoLinux }

// Remove fails.
func Remove(context.Context, Config) (bool, error) { return false, errNoLinux }
