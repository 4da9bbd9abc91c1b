// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package cut

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Engine ends flows, on Linux.
type Engine struct{}

// New makes an engine that does nothing: Missing says so.
func New(Config) *Engine { return new(Engine) }

// Cut implements knockcore.Cutter.
func (*Engine) Cut(netip.Prefix, *knockcore.Service) {}

// Close does nothing.
func (*Engine) Close() {}

// Missing says what this process cannot do: all of it.
func Missing(int) error {
	return errors.Join(fmt.Errorf("%w: it is Linux's", ErrConntrack), fmt.Errorf("%w: it is Linux's", ErrSockets))
}
