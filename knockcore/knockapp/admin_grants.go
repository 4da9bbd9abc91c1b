// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// grantJSON is a grant as the admin API shows it.
type grantJSON struct {
	ID      knockcore.GrantID `json:"id"`
	Client  string            `json:"client"`
	Service string            `json:"service"`
	Method  string            `json:"method,omitempty"`
	Scope   string            `json:"scope"`
	Prefix  netip.Prefix      `json:"prefix"`
	Source  netip.Addr        `json:"source"`
	Made    time.Time         `json:"made"`
	Expires *time.Time        `json:"expires,omitempty"`
	// ExpiresIn is in seconds.
	ExpiresIn float64 `json:"expires_in_seconds,omitempty"`
	Uses      *int    `json:"uses,omitempty"`
	// Trouble is what went wrong with what it opened: a command that failed.
	Trouble string `json:"trouble,omitempty"`
}

func showGrant(g *knockcore.Grant, now time.Time) grantJSON {
	shown := grantJSON{
		ID: g.ID, Client: g.Client, Service: g.Service, Method: g.Method.String(), Scope: g.Scope.String(),
		Prefix: g.Prefix, Source: g.Source, Made: g.Made.Round(0),
	}
	if g.Scope != knockcore.ScopeConnection {
		expires := g.Expires.Round(0)
		shown.Expires, shown.ExpiresIn = &expires, g.Remaining(now).Seconds()
	}
	if g.Scope == knockcore.ScopeSession || g.Uses >= 0 && g.Scope == knockcore.ScopeAddress {
		shown.Uses = &g.Uses
	}
	return shown
}

// trouble is what went wrong with a grant's window, nil if nothing did.
func (a *App) trouble(g *knockcore.Grant) error {
	s := a.gate.Service(g.Service)
	if s == nil {
		return nil
	}
	if fw, ok := a.config.Firewalls[s.Firewall].(knockcore.Troubled); ok {
		return fw.Trouble(knockcore.Window{Prefix: g.Prefix, Service: g.Service})
	}
	return nil
}

// selection reads the parameters that select grants.
func selection(r *http.Request) (sel knockcore.Selection, err error) {
	q := r.URL.Query()
	for key, values := range q {
		value := values[len(values)-1]
		switch key {
		case "client":
			sel.Client, err = value, notEmpty(key, value)
		case "service":
			sel.Service, err = value, notEmpty(key, value)
		case "method":
			sel.Method, err = knockcore.ParseMethod(value)
		case "address":
			sel.Prefix, err = parseAddressOrPrefix(value)
		case "id":
			sel.ID, err = knockcore.ParseGrantID(value)
		case "limit", "after", "all":
		default:
			return sel, fmt.Errorf("unknown parameter %q; expect client, service, method, address, id, limit, after or all", key)
		}
		if err != nil {
			return sel, err
		}
	}
	return sel, nil
}

// notEmpty refuses an empty value, which would select everything.
func notEmpty(key, value string) error {
	if value == "" {
		return fmt.Errorf("parameter %s is empty", key)
	}
	return nil
}

func parseAddressOrPrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return knockcore.AddrPrefix(addr), nil
	}
	p, err := netip.ParsePrefix(s)
	if p = knockcore.NormalPrefix(p); err != nil || !p.IsValid() {
		return p, fmt.Errorf("%q is neither an address nor a prefix", s)
	}
	return p, nil
}

// The bounds of a page of grants.
const (
	defaultPage = 1_000
	maxPage     = 10_000
)

func (*Admin) grants(app *App, r *http.Request) (any, error) {
	sel, err := selection(r)
	if err != nil {
		return nil, err
	}
	limit := defaultPage
	if text := r.URL.Query().Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxPage {
			return nil, fmt.Errorf("limit %q is not a number from 1 to %d", text, maxPage)
		}
	}
	var after knockcore.GrantID
	if text := r.URL.Query().Get("after"); text != "" {
		if after, err = knockcore.ParseGrantID(text); err != nil {
			return nil, fmt.Errorf("after: %w", err)
		}
	}
	page, more := app.Running().State().Page(sel.Match, after, limit)
	answer := struct {
		Grants []grantJSON `json:"grants"`
		// Next is the value of `after` for the next page, absent on the last one.
		Next *knockcore.GrantID `json:"next,omitempty"`
	}{Grants: make([]grantJSON, 0, len(page))}
	now := app.Running().Now()
	for _, g := range page {
		shown := showGrant(g, now)
		if err := app.trouble(g); err != nil {
			shown.Trouble = err.Error()
		}
		answer.Grants = append(answer.Grants, shown)
	}
	if more {
		answer.Next = &page[len(page)-1].ID
	}
	return answer, nil
}

// maxBody bounds request bodies, in bytes.
const maxBody = 1 << 16

func (*Admin) grant(app *App, r *http.Request) (any, error) {
	var order struct {
		Client  string         `json:"client"`
		Service string         `json:"service"`
		Address string         `json:"address"`
		TTL     caddy.Duration `json:"ttl"`
	}
	body := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	body.DisallowUnknownFields()
	if err := body.Decode(&order); err != nil {
		return nil, fmt.Errorf("reading the grant: %w", err)
	}
	prefix, err := parseAddressOrPrefix(order.Address)
	if err != nil {
		return nil, err
	}
	if order.TTL < 0 {
		return nil, errors.New("ttl must not be negative")
	}
	g, err := app.Running().GrantByHand(r.Context(), order.Client, order.Service, prefix, time.Duration(order.TTL))
	if err != nil {
		return nil, err
	}
	return showGrant(g, app.Running().Now()), nil
}

func (*Admin) revoke(app *App, r *http.Request) (any, error) {
	sel, err := selection(r)
	if err != nil {
		return nil, err
	}
	if sel.All() && r.URL.Query().Get("all") != "true" {
		return nil, errors.New("name what to revoke by client, service, method, address or id, or say all=true")
	}
	answer := struct {
		Revoked int      `json:"revoked"`
		Errors  []string `json:"errors,omitempty"`
	}{}
	revoked, errs := app.Running().RevokeAll(r.Context(), sel, "admin")
	answer.Revoked = revoked
	for _, err := range errs {
		answer.Errors = append(answer.Errors, err.Error())
	}
	if len(answer.Errors) > 0 {
		return answer, httpStatus{http.StatusInternalServerError, "not all was closed"}
	}
	// Grants may outlive their client or service in the configuration, so this is
	// asked afterwards.
	switch {
	case revoked > 0:
	case sel.Client != "" && app.Running().Keyring().Client(sel.Client) == nil:
		return nil, httpStatus{http.StatusNotFound, fmt.Sprintf("0 revoked; there is no client %q", sel.Client)}
	case sel.Service != "" && app.Running().Service(sel.Service) == nil:
		return nil, httpStatus{http.StatusNotFound, fmt.Sprintf("0 revoked; there is no service %q", sel.Service)}
	}
	return answer, nil
}
