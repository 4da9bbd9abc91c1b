// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"net/http"
	"net/netip"
	"time"
)

func (*Admin) bans(app *App, _ *http.Request) (any, error) {
	type banJSON struct {
		Prefix  netip.Prefix `json:"prefix"`
		Made    time.Time    `json:"made"`
		Until   time.Time    `json:"until"`
		Strikes int          `json:"strikes"`
	}
	list := []banJSON{}
	if bans := app.Running().Bans(); bans != nil {
		for _, b := range bans.List(app.Running().Now()) {
			list = append(list, banJSON{b.Prefix, b.Made, b.Until, b.Strikes})
		}
	}
	return map[string]any{"bans": list}, nil
}

func (*Admin) lift(app *App, r *http.Request) (any, error) {
	p, err := parseAddressOrPrefix(r.URL.Query().Get("prefix"))
	if err != nil {
		return nil, err
	}
	lifted := 0
	if bans := app.Running().Bans(); bans != nil {
		lifted = bans.Lift(p)
	}
	return map[string]int{"lifted": lifted}, nil
}
