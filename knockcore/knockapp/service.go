// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Service is what is protected.
type Service struct {
	// Name names the service: 1 to 65,535 bytes without blanks.
	Name string `json:"name"`

	// Ports are those that clients connect to, as `tcp/2222`, `udp/60000-61000`.
	// The upstream stands in the route.
	Ports []string `json:"ports"`

	// OpenFor is how long a grant lasts if neither the knock nor the client says.
	// Default: 30s.
	OpenFor caddy.Duration `json:"open_for,omitempty"`

	// MaxOpen caps every grant. Default: no cap.
	MaxOpen caddy.Duration `json:"max_open,omitempty"`

	// RequireSession demands that a knock (a datagram, say) came before the TCP
	// frame, and that both carry the same session ID. Default: false.
	RequireSession bool `json:"require_session,omitempty"`

	// Uses is how many TCP frames a knock pays for, with `require_session`.
	// Default: 1.
	Uses int `json:"uses,omitempty"`

	// CloseAfterAuth closes the window of a knock as soon as its last frame has
	// passed, with `require_session`. Windows of others for the same address stay.
	// Default: false.
	CloseAfterAuth bool `json:"close_after_auth,omitempty"`

	// Destinations are prefixes of routed hosts, such as containers with addresses
	// of their own, on which the firewall gates the ports besides this host's
	// addresses. Ports that Docker publishes need no entry. Default: none.
	Destinations []string `json:"destinations,omitempty"`

	// Firewall names the firewall that opens windows for this service. Default:
	// none.
	Firewall string `json:"firewall,omitempty"`

	// OnExpire says what happens to established connections when their grant ends:
	// `drain` lets them end by themselves, `cut` ends them. Default: drain.
	OnExpire string `json:"on_expire,omitempty"`

	// At is where the service stands in the Caddyfile, as `file:line`. The
	// Caddyfile adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`
}

// noService is the error about a name that no service has.
func noService(name string) error {
	if strings.Contains(name, ",") {
		return fmt.Errorf("there is no service %q; names are separated by blanks, not by commas", name)
	}
	return fmt.Errorf("there is no service %q; define it with `service %s tcp/PORT` in the knock block", name, name)
}

func (s *Service) convert() (*knockcore.Service, error) {
	service := &knockcore.Service{
		Name: s.Name, OpenFor: time.Duration(s.OpenFor), MaxOpen: time.Duration(s.MaxOpen),
		RequireSession: s.RequireSession, Firewall: s.Firewall, Uses: s.Uses, CloseAfterAuth: s.CloseAfterAuth,
	}
	var err error
	if service.Destinations, err = ParsePrefixes(s.Destinations); err != nil {
		return nil, fmt.Errorf("service %s: destinations: %w", s.Name, err)
	}
	for _, p := range s.Ports {
		r, err := knockcore.ParsePortRange(p)
		if err != nil && strings.Contains(p, ",") {
			err = fmt.Errorf("%w; ports are separated by blanks, not by commas", err)
		}
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", s.Name, err)
		}
		service.Ports = append(service.Ports, r)
	}
	switch s.OnExpire {
	case "", "drain":
	case "cut":
		service.CutOnExpire = true
	default:
		return nil, fmt.Errorf("service %s: on_expire %q; expect drain or cut", s.Name, s.OnExpire)
	}
	return service, service.Validate()
}
