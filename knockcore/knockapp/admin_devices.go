// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/device"
)

// invitation is what the admin API answers to an order for one. The token is in the
// link's fragment, which browsers keep to themselves: it is in no access log.
type invitation struct {
	Client  string    `json:"client"`
	Link    string    `json:"link"`
	Expires time.Time `json:"expires"`
}

func (*Admin) invite(app *App, r *http.Request) (any, error) {
	var order struct {
		Client string         `json:"client"`
		Life   caddy.Duration `json:"life"`
		Page   string         `json:"page"`
	}
	body := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	body.DisallowUnknownFields()
	if err := body.Decode(&order); err != nil {
		return nil, fmt.Errorf("reading the order: %w", err)
	}
	page := order.Page
	if page == "" {
		known := app.devices.page.Load()
		if known == nil || *known == "" {
			return nil, errNoPage
		}
		page = *known
	}
	join, err := JoinURL(page)
	if err != nil {
		return nil, err
	}
	token, expires, err := app.Invite(order.Client, time.Duration(order.Life))
	if err != nil {
		return nil, err
	}
	join.Fragment = string(token.Bytes())
	return invitation{order.Client, join.String(), expires.UTC().Truncate(time.Second)}, nil
}

// JoinURL is where invitations to a page are redeemed. The page must be served over
// HTTPS, or browsers keep no key for it.
func JoinURL(page string) (*url.URL, error) {
	u, err := url.Parse(page)
	if err == nil && u.Scheme == "http" && u.Host != "" {
		return nil, fmt.Errorf("%q must begin with https://: browsers keep no key for a page without TLS", page)
	}
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not the URL of a page such as https://knock.example.com", page)
	}
	return u.JoinPath("join"), nil
}

// deviceJSON is a device as the admin API shows it.
type deviceJSON struct {
	ID     string    `json:"id"`
	Client string    `json:"client"`
	Name   string    `json:"name"`
	Joined time.Time `json:"joined"`
	// Grants is how many live grants it has.
	Grants int `json:"grants"`
	// Orphan says that its client is gone, so that its key is worth nothing.
	Orphan bool `json:"orphan,omitempty"`
}

func (*Admin) devices(app *App, r *http.Request) (any, error) {
	match, _, err := selectDevices(r)
	if err != nil {
		return nil, err
	}
	gate := app.Running()
	live := make(map[string]int)
	gate.State().Each(func(g *knockcore.Grant) { live[g.Device()]++ })
	list := []deviceJSON{}
	for _, d := range *app.devices.known.Load() {
		if match(d) {
			list = append(list, deviceJSON{d.ID, d.Client, d.Name, d.Joined, live[d.ID], gate.Keyring().Client(d.Client) == nil})
		}
	}
	slices.SortFunc(list, func(a, b deviceJSON) int { return a.Joined.Compare(b.Joined) })
	return map[string]any{"devices": list}, nil
}

// selectDevices reads the parameters that select devices.
func selectDevices(r *http.Request) (match func(device.Device) bool, all bool, err error) {
	q := r.URL.Query()
	for key := range q {
		if key != "id" && key != "client" {
			return nil, false, fmt.Errorf("unknown parameter %q; expect id or client", key)
		}
	}
	ids, clients := q["id"], q["client"]
	return func(d device.Device) bool {
		return (ids == nil || slices.Contains(ids, d.ID)) && (clients == nil || slices.Contains(clients, d.Client))
	}, ids == nil && clients == nil, nil
}

func (*Admin) removeDevices(app *App, r *http.Request) (any, error) {
	match, all, err := selectDevices(r)
	if err != nil {
		return nil, err
	}
	if all {
		return nil, errors.New("name the devices by id or client")
	}
	removed, err := app.RemoveDevices(r.Context(), match)
	if err != nil {
		return nil, httpStatus{http.StatusInternalServerError, err.Error()}
	}
	return map[string]int{"revoked": len(removed)}, nil
}
