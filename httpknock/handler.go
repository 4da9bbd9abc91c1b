// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package httpknock has what knocks by HTTP: the handler http.handlers.knock, which
// is a drop-in for Knocker, the matcher http.matchers.knocked, and the wrappers
// caddy.listeners.knocked and caddy.packetconns.knocked, which refuse addresses
// without a grant before TLS.
package httpknock

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler takes knocks by HTTP and answers other proxies whether an address is in.
// It is a drop-in for the server Knocker, whose clients work unmodified:
//
//	POST /knock    with the API key in X-Api-Key: lets the address in
//	GET  /verify   200 if the address is in, otherwise 401
//	GET  /health   200 if knocks are taken
//	GET  /ready    200 if all is well, the store and firewalls included
//
// With `page`, it serves a page for people, too. Everything else goes on to the next
// handler.
//
// The address is the peer's, or the one that X-Forwarded-For names if the peer is
// among the server's `trusted_proxies`. Behind a proxy that is not among them, each
// knock would be for the proxy: the app refuses addresses of this host.
//
// Requests with a key never appear in Caddy's access log, which would show it: the
// handler writes a line of its own, without the key.
type Handler struct {
	// Services are those that this handler is about: a knock opens the ones among
	// them that the client may reach, and /verify asks for a grant for one of them.
	// Default: all.
	Services []string `json:"services,omitempty"`

	// AlwaysAllowed lists addresses and prefixes for which /verify says 200 without a
	// grant. Default: none.
	AlwaysAllowed []string `json:"always_allowed,omitempty"`

	// ExcludedPaths lists paths for which, with all below them, /verify says 200
	// whoever asks. They are compared with the path as it was requested, not decoded;
	// a path with encoded separators or dots, double slashes, backslashes or dot
	// segments is never excluded. Default: none.
	ExcludedPaths []string `json:"excluded_paths,omitempty"`

	// ExcludedPathsByHost lists such paths by the host that the proxy names in
	// X-Forwarded-Host; `*` is any. Default: none.
	ExcludedPathsByHost map[string][]string `json:"excluded_paths_by_host,omitempty"`

	// CORSOrigin is what knocks are answered in Access-Control-Allow-Origin, whoever
	// asks. Default: `*`.
	CORSOrigin string `json:"cors_origin,omitempty"`

	// MaxGrants bounds the live grants made by HTTP; one more is answered with 503.
	// What was acknowledged stays, and can be renewed. A knock makes one grant for
	// each service. Default: 10000.
	MaxGrants int `json:"max_grants,omitempty"`

	// RateLimit bounds how often one address may knock.
	RateLimit *RateLimit `json:"rate_limit,omitempty"`

	// Documentation serves a description of all this: /openapi.json, and /docs for
	// people. Default: false.
	Documentation bool `json:"documentation,omitempty"`

	// Page serves a page for people at /: see Page. Default: none.
	Page *Page `json:"page,omitempty"`

	// At is where the handler stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`

	app       *knockapp.App
	query     *knockcore.Query
	allowed   []netip.Prefix
	excluded  excluded
	limits    *limits
	endpoints map[string]endpoint
	metrics   *metrics
	logger    *zap.Logger
}

// defaultMaxGrants is how many live grants there may be by default.
const defaultMaxGrants = 10_000

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.knock", New: func() caddy.Module { return new(Handler) }}
}

// Provision sets the handler up.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.metrics = newMetrics(ctx.GetMetricsRegistry())
	return knockapp.Placed(h.At, h.set(ctx))
}

func (h *Handler) set(ctx caddy.Context) (err error) {
	if h.app, err = knockapp.Of(ctx); err != nil {
		return err
	}
	if err = h.app.CheckNames(h.Services, nil); err != nil {
		return err
	}
	if !h.app.Enabled(knockcore.MethodHTTP) {
		return fmt.Errorf("method %v is not among the methods that are enabled", knockcore.MethodHTTP)
	}
	h.app.Guards(knockapp.TakesKnocks, h.Services...)
	if len(h.Services) > 0 { // other proxies may ask /verify for these
		h.app.Guards(knockapp.GuardAddress, h.Services...)
	}
	h.query = knockcore.NewQuery(h.Services, nil)
	if h.allowed, err = knockapp.ParsePrefixes(h.AlwaysAllowed); err != nil {
		return fmt.Errorf("always_allowed: %w", err)
	}
	if h.excluded, err = newExcluded(h.ExcludedPaths, h.ExcludedPathsByHost); err != nil {
		return err
	}
	if h.limits, err = h.RateLimit.convert(); err != nil {
		return err
	}
	if h.CORSOrigin == "" {
		h.CORSOrigin = "*"
	}
	if strings.ContainsFunc(h.CORSOrigin, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("cors_origin %q is not an origin such as https://knock.example.com", h.CORSOrigin)
	}
	if h.MaxGrants < 0 {
		return fmt.Errorf("max_grants must not be negative")
	}
	if h.MaxGrants == 0 {
		h.MaxGrants = defaultMaxGrants
	}
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && trustsLoosely(server) {
		h.logger.Warn("trusted_proxies is not strict: knocks and `knocked` go by the rightmost address that is not a proxy's, but client_ip, which others and the log use, can be forged; add `trusted_proxies_strict`",
			zap.String("server", server.Name()))
	}
	if h.Page != nil {
		h.app.Guards(knockapp.Invites)
		if err = h.Page.provision(h.app); err != nil {
			return err
		}
	}
	h.endpoints = h.routes()
	return nil
}

// trustsLoosely reports whether a server has trusted proxies and reads
// X-Forwarded-For from the left.
func trustsLoosely(server *caddyhttp.Server) bool {
	proxies := reflect.ValueOf(server).Elem().FieldByName("trustedProxies")
	return server.TrustedProxiesStrict == 0 && proxies.IsValid() && proxies.Kind() == reflect.Interface && !proxies.IsNil()
}

// endpoint is what is served at a path, by method.
type endpoint map[string]func(http.ResponseWriter, *http.Request)

// routes is the table of endpoints.
func (h *Handler) routes() map[string]endpoint {
	routes := map[string]endpoint{
		"/knock":  {http.MethodPost: h.serveKnock, http.MethodOptions: h.servePreflight},
		"/verify": {http.MethodGet: h.serveVerify},
		"/health": {http.MethodGet: h.serveHealth},
		"/ready":  {http.MethodGet: h.serveReady},
	}
	if h.Documentation {
		routes["/openapi.json"] = endpoint{http.MethodGet: h.serveOpenAPI}
		routes["/docs"] = endpoint{http.MethodGet: h.serveDocs}
	}
	if h.Page != nil {
		h.Page.routes(h, routes)
	}
	return routes
}

// ServeHTTP answers the requests to the endpoints and passes others on.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	_, hasKey := r.Header[keyHeader]
	if hasKey {
		caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	}
	path := endpointPath(r.URL.Path)
	methods, ok := h.endpoints[path]
	if !ok {
		if hasKey {
			h.logger.Info("request with an API key, which is therefore not in the access log",
				zap.String("method", r.Method), zap.String("host", r.Host), zap.String("path", r.URL.Path), zap.String("remote", r.RemoteAddr))
		}
		return next.ServeHTTP(w, r)
	}
	counted := &statusWriter{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	defer func() { h.metrics.count(path, counted.status) }()
	if gate := h.app.Running(); gate != nil && r.ProtoMajor < 3 && gate.KeepsOut(peerAddr(r)) {
		counted.Header().Set("Connection", "close") // packets of a new one don't arrive
	}
	serve := methods[r.Method]
	if serve == nil {
		counted.Header().Set("Allow", methods.allow())
		writeJSON(counted, http.StatusMethodNotAllowed, map[string]string{"detail": textNotAllowed})
		return nil
	}
	serve(counted, r)
	return nil
}

// endpointPath forgives a slash too many at either end, which clients send when
// they put URLs together.
func endpointPath(path string) string {
	if len(path) > 1 && path[1] == '/' {
		path = path[1:]
	}
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	return path
}

// allow lists the methods, for the header Allow.
func (e endpoint) allow() string {
	methods := make([]string, 0, len(e))
	for m := range e {
		methods = append(methods, m)
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

// startTimeout is how long a request waits for the app, which may start after the
// HTTP server.
const startTimeout = 5 * time.Second

// gatekeeper returns the gatekeeper, nil if the app does not start.
func gatekeeper(ctx context.Context, app *knockapp.App) *knockcore.Gatekeeper {
	if gate := app.Running(); gate != nil {
		return gate
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	gate, err := app.Gatekeeper(ctx)
	if err != nil {
		return nil
	}
	return gate
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	*caddyhttp.ResponseWriterWrapper
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriterWrapper.WriteHeader(status)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
