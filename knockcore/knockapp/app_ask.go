// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

// Gatekeeper returns the gatekeeper of this configuration. Routes may run before
// this app has started: then it waits, until ctx is done or the configuration is
// given up.
func (a *App) Gatekeeper(ctx context.Context) (*knockcore.Gatekeeper, error) {
	select {
	case <-a.started:
		return a.gate, nil
	default:
	}
	select {
	case <-a.started:
		return a.gate, nil
	case <-a.ended:
		return nil, errors.New("the configuration was given up")
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the knock app to start: %w", ctx.Err())
	}
}

// Running returns the gatekeeper if the app has started, otherwise nil; it never
// waits.
func (a *App) Running() *knockcore.Gatekeeper {
	select {
	case <-a.started:
		return a.gate
	default:
		return nil
	}
}

// CheckNames reports the first of the services and clients that is not
// configured, for modules that name some.
func (a *App) CheckNames(services, clients []string) error {
	for _, name := range services {
		if !slices.ContainsFunc(a.config.Services, func(s *knockcore.Service) bool { return s.Name == name }) {
			return noService(name)
		}
	}
	for _, id := range clients {
		if a.config.Keyring.Client(id) == nil {
			return fmt.Errorf("there is no client %q; define it in the knock block with `client %s`", id, id)
		}
	}
	return nil
}

// Keyring returns the clients of the configuration as it was loaded, for checks
// while other modules provision.
func (a *App) Keyring() *knockcore.Keyring { return a.config.Keyring }

// Pending is the process-wide bound on undecided streams.
func (a *App) Pending() *knockserver.Pending { return sharedPending(a.MaxPending) }

// Of finds the app in the configuration that is being loaded.
func Of(ctx caddy.Context) (*App, error) {
	mod, err := ctx.AppIfConfigured("knock")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, errors.New("there are no clients and services: add a `knock` block to the global options")
	}
	if err != nil {
		return nil, err
	}
	return mod.(*App), nil
}
