// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func (*Admin) clients(app *App, _ *http.Request) (any, error) {
	type clientJSON struct {
		ID       string         `json:"id"`
		Services []string       `json:"services"`
		Methods  []string       `json:"methods,omitempty"`
		From     []netip.Prefix `json:"from,omitempty"`
		TTL      string         `json:"ttl,omitempty"`
		MaxTTL   string         `json:"max_ttl,omitempty"`
		Expires  *time.Time     `json:"expires,omitempty"`
		Secrets  int            `json:"secrets"`
		Grants   int            `json:"grants"`
	}
	gate := app.Running()
	live := make(map[string]int)
	gate.State().Each(func(g *knockcore.Grant) { live[g.Client]++ })
	list := make([]clientJSON, 0, gate.Keyring().Len())
	for _, c := range gate.Keyring().Clients() {
		shown := clientJSON{ID: c.ID, Services: c.Services, From: c.From, Secrets: len(c.Secrets), Grants: live[c.ID]}
		if c.AllServices {
			shown.Services = []string{"all"}
		}
		for _, m := range c.Methods.Methods() {
			shown.Methods = append(shown.Methods, m.String())
		}
		if c.TTL > 0 {
			shown.TTL = c.TTL.String()
		}
		if c.MaxTTL > 0 {
			shown.MaxTTL = c.MaxTTL.String()
		}
		if !c.Expires.IsZero() {
			shown.Expires = &c.Expires
		}
		list = append(list, shown)
	}
	return map[string]any{"clients": list}, nil
}
