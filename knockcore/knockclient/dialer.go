// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// ContextDialer makes connections: *net.Dialer, the dialers of
// golang.org/x/net/proxy, or your own.
type ContextDialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Dialer makes connections that are authenticated when the caller gets them. It
// is used like net.Dialer. The connection returned is the base dialer's own, so
// that whatever it can do (CloseWrite, splicing) still works.
type Dialer struct {
	// Base makes the connections; nil means a net.Dialer without settings.
	Base ContextDialer
	// Config is used for all of them. If its Port is 0, the protected port is the
	// port of the address that is dialled, also where the base dialer goes through
	// a proxy.
	Config Config
	// Opening, if set, is a knock that goes before each connection; with a session
	// ID inside, unless it says otherwise, the same is in the frame. Config needs
	// not be valid if there is no frame.
	Opening *Opening
}

// Dial is DialContext without a context.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects to the address on a network of streams (tcp, tcp4, tcp6,
// unix) and authenticates. ctx bounds both together; Config.Timeout bounds the
// latter. Errors of the base dialer come back as they are; those of
// authenticating begin with "authenticating to".
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	cfg := d.Config
	opening := d.Opening
	noFrame := opening != nil && opening.NoFrame
	if !noFrame {
		if err := cfg.Validate(); err != nil {
			return nil, err
		}
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
		if cfg.Port == 0 {
			port, err := portOf(ctx, network, address)
			if err != nil {
				return nil, err
			}
			cfg.Port = port
		}
	case "unix":
	default:
		return nil, fmt.Errorf("dialling %s: %q is no network of streams; expect tcp, tcp4, tcp6 or unix", address, network)
	}
	base := d.Base
	if base == nil {
		base = new(net.Dialer)
	}
	var conn net.Conn
	var err error
	if opening == nil || network == "unix" {
		conn, err = base.DialContext(ctx, network, address)
	} else {
		var session []byte
		if conn, session, err = opening.open(ctx, base, network, address, &cfg); session != nil {
			cfg.Session = session
		}
	}
	if err != nil || noFrame {
		return conn, err
	}
	if err := Auth(ctx, conn, cfg); err != nil {
		return nil, fmt.Errorf("authenticating to %s as %s: %w", address, cfg.ClientID, err)
	}
	return conn, nil
}

// portOf finds the port of an address as net.Dial takes it: a number or the name
// of a service.
func portOf(ctx context.Context, network, address string) (uint16, error) {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return 0, fmt.Errorf("finding the protected port: %w", err)
	}
	port, err := net.DefaultResolver.LookupPort(ctx, strings.TrimRight(network, "46"), text)
	if err != nil {
		return 0, fmt.Errorf("finding the protected port: %w", err)
	}
	if port == 0 {
		return 0, fmt.Errorf("finding the protected port: address %s has none; set Config.Port", address)
	}
	return uint16(port), nil
}

var _ ContextDialer = (*Dialer)(nil)
