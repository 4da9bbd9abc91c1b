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

func init() { caddy.RegisterModule(new(Admin)) }

// Admin serves the knock app in Caddy's admin API, below /knock/:
//
//	GET    /knock/status                      what runs, in numbers
//	GET    /knock/health                      200 if all is well, 503 and why otherwise
//	GET    /knock/grants                      live grants
//	POST   /knock/grants                      make one by hand
//	DELETE /knock/grants                      revoke some
//	GET    /knock/clients                     clients, without secrets
//	GET    /knock/bans                        bans
//	DELETE /knock/bans?prefix=                lift a ban
//
// Grants are selected by the parameters client, service, address (any grant that
// covers it), id and method; `limit` and `after` page through them.
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (*Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.knock", New: func() caddy.Module { return new(Admin) }}
}

// Routes returns the endpoints.
func (a *Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/knock/status", Handler: only(get(a.status))},
		{Pattern: "/knock/health", Handler: only(get(a.health))},
		{Pattern: "/knock/clients", Handler: only(get(a.clients))},
		{Pattern: "/knock/grants", Handler: only(map[string]adminFunc{http.MethodGet: a.grants, http.MethodPost: a.grant, http.MethodDelete: a.revoke})},
		{Pattern: "/knock/bans", Handler: only(map[string]adminFunc{http.MethodGet: a.bans, http.MethodDelete: a.lift})},
	}
}

// adminFunc answers a request with what it returns, as JSON.
type adminFunc func(*App, *http.Request) (any, error)

func get(f adminFunc) map[string]adminFunc { return map[string]adminFunc{http.MethodGet: f} }

// only finds the app that runs now, and the function for the method. Nothing is
// kept from one request to the next: a router outlives failed reloads.
func only(methods map[string]adminFunc) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		f := methods[r.Method]
		if f == nil {
			return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("method %s is not allowed here", r.Method)}
		}
		mod, err := caddy.ActiveContext().AppIfConfigured("knock")
		if err != nil {
			return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("the knock app is not configured")}
		}
		app := mod.(*App)
		if app.Running() == nil {
			return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: errors.New("the knock app has not started")}
		}
		answer, err := f(app, r)
		if err != nil {
			var status httpStatus
			if !errors.As(err, &status) {
				status.code = http.StatusBadRequest
			}
			if answer == nil {
				return caddy.APIError{HTTPStatus: status.code, Err: err}
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status.code)
			return json.NewEncoder(w).Encode(answer)
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(answer)
	}
}

// httpStatus is an error with a status of its own.
type httpStatus struct {
	code int
	text string
}

func (s httpStatus) Error() string { return s.text }

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

// selection reads the parameters that select grants; all is set if there are
// none.
func selection(r *http.Request) (match func(*knockcore.Grant) bool, all bool, err error) {
	q := r.URL.Query()
	var tests []func(*knockcore.Grant) bool
	for key, values := range q {
		value := values[len(values)-1]
		switch key {
		case "client":
			tests = append(tests, func(g *knockcore.Grant) bool { return g.Client == value })
		case "service":
			tests = append(tests, func(g *knockcore.Grant) bool { return g.Service == value })
		case "method":
			m, err := knockcore.ParseMethod(value)
			if err != nil {
				return nil, false, err
			}
			tests = append(tests, func(g *knockcore.Grant) bool { return g.Method == m })
		case "address":
			p, err := parseAddressOrPrefix(value)
			if err != nil {
				return nil, false, err
			}
			tests = append(tests, func(g *knockcore.Grant) bool { return g.Prefix.Overlaps(p) })
		case "id":
			id, err := knockcore.ParseGrantID(value)
			if err != nil {
				return nil, false, err
			}
			tests = append(tests, func(g *knockcore.Grant) bool { return g.ID == id })
		case "limit", "after", "all":
		default:
			return nil, false, fmt.Errorf("unknown parameter %q; expect client, service, method, address, id, limit, after or all", key)
		}
	}
	return func(g *knockcore.Grant) bool {
		for _, test := range tests {
			if !test(g) {
				return false
			}
		}
		return true
	}, len(tests) == 0, nil
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
	match, _, err := selection(r)
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
	page, more := app.Running().State().Page(match, after, limit)
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
	match, all, err := selection(r)
	if err != nil {
		return nil, err
	}
	if all && r.URL.Query().Get("all") != "true" {
		return nil, errors.New("name what to revoke by client, service, method, address or id, or say all=true")
	}
	gate := app.Running()
	answer := struct {
		Revoked int      `json:"revoked"`
		Errors  []string `json:"errors,omitempty"`
	}{}
	for _, g := range gate.State().Grants(match) {
		ok, err := gate.Revoke(r.Context(), g.ID, "admin")
		if ok {
			answer.Revoked++
		}
		if err != nil {
			answer.Errors = append(answer.Errors, err.Error())
		}
	}
	if len(answer.Errors) > 0 {
		return answer, httpStatus{http.StatusInternalServerError, "not all was closed"}
	}
	return answer, nil
}

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
	for _, g := range gate.State().Grants(nil) {
		live[g.Client]++
	}
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

func (*Admin) health(app *App, _ *http.Request) (any, error) {
	problems := app.problems()
	answer := struct {
		Healthy  bool     `json:"healthy"`
		Problems []string `json:"problems,omitempty"`
	}{len(problems) == 0, problems}
	if !answer.Healthy {
		return answer, httpStatus{http.StatusServiceUnavailable, "not healthy"}
	}
	return answer, nil
}

func (*Admin) status(app *App, _ *http.Request) (any, error) {
	gate := app.Running()
	type serviceJSON struct {
		Name     string   `json:"name"`
		Ports    []string `json:"ports"`
		Firewall string   `json:"firewall,omitempty"`
		Grants   int      `json:"grants"`
	}
	live := make(map[string]int)
	for _, g := range gate.State().Grants(nil) {
		live[g.Service]++
	}
	answer := struct {
		Healthy  bool          `json:"healthy"`
		Problems []string      `json:"problems,omitempty"`
		Clients  int           `json:"clients"`
		Grants   int           `json:"grants"`
		Nonces   int           `json:"replay_nonces"`
		Pending  int           `json:"streams_pending"`
		Window   string        `json:"time_window"`
		Store    string        `json:"store"`
		Services []serviceJSON `json:"services"`
	}{
		Problems: app.problems(), Clients: gate.Keyring().Len(), Grants: gate.State().Len(),
		Pending: app.Pending().Len(), Window: gate.Window().String(), Services: []serviceJSON{},
	}
	answer.Healthy = len(answer.Problems) == 0
	if live := app.live.Load(); live != nil {
		answer.Store = live.key
	}
	if counter, ok := gate.State().Store.(interface{ Nonces() int }); ok {
		answer.Nonces = counter.Nonces()
	}
	for _, s := range gate.Services() {
		shown := serviceJSON{Name: s.Name, Firewall: s.Firewall, Grants: live[s.Name]}
		for _, p := range s.Ports {
			shown.Ports = append(shown.Ports, p.String())
		}
		answer.Services = append(answer.Services, shown)
	}
	return answer, nil
}

// problems lists what is not well, for people.
func (a *App) problems() []string {
	var problems []string
	if checker, ok := a.gate.State().Store.(interface{ Health() error }); ok {
		if err := checker.Health(); err != nil {
			problems = append(problems, "store: "+err.Error())
		}
	}
	if a.file != nil {
		if err := a.file.health(); err != nil {
			problems = append(problems, "clients_file: "+err.Error())
		}
	}
	return append(problems, a.sourceProblems()...)
}

// Interface guards
var _ caddy.AdminRouter = (*Admin)(nil)
