// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
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
//	POST   /knock/invites                     invite a device of a client
//	GET    /knock/devices                     devices that joined
//	DELETE /knock/devices?id= or ?client=     revoke some
//	GET    /knock/events                      what happens, as server-sent events
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
		{Pattern: "/knock/events", Handler: caddy.AdminHandlerFunc(stream)},
		{Pattern: "/knock/bans", Handler: only(map[string]adminFunc{http.MethodGet: a.bans, http.MethodDelete: a.lift})},
		{Pattern: "/knock/invites", Handler: only(map[string]adminFunc{http.MethodPost: a.invite})},
		{Pattern: "/knock/devices", Handler: only(map[string]adminFunc{http.MethodGet: a.devices, http.MethodDelete: a.removeDevices})},
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
		app, err := running()
		if err != nil {
			return err
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

// running finds the app that runs now; the error is a caddy.APIError.
func running() (*App, error) {
	mod, err := caddy.ActiveContext().AppIfConfigured("knock")
	if err != nil {
		return nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("the knock app is not configured")}
	}
	app := mod.(*App)
	if app.Running() == nil {
		return nil, caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: errors.New("the knock app has not started")}
	}
	return app, nil
}

// httpStatus is an error with a status of its own.
type httpStatus struct {
	code int
	text string
}

func (s httpStatus) Error() string { return s.text }

// Interface guards
var _ caddy.AdminRouter = (*Admin)(nil)
