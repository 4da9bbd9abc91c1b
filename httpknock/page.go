// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

// Page is a page for people, at / of where the handler is mounted: one button, what
// is open and for how long. It needs HTTPS, and works without JavaScript. What it
// consists of is below /page/; invitations are redeemed at /join.
//
// The browser keeps the key in a cookie that scripts can't read and that no other
// site can make it send. Who has no key yet enters one, or gets one by an invitation:
// see `caddy knock invite`.
type Page struct {
	// URL is where the page is, for invitations: https://knock.example.com. Default:
	// `caddy knock invite` has to say.
	URL string `json:"url,omitempty"`

	// V4 is the URL of the same page under a name that has IPv4 addresses only, and V6
	// under one that has IPv6 addresses only. The page then shows both addresses of a
	// client and knocks for both. Default: only the address that the page was opened
	// from.
	V4 string `json:"v4,omitempty"`
	V6 string `json:"v6,omitempty"`

	header http.Header
}

func (p *Page) provision(app *knockapp.App) error {
	connect := ""
	for _, option := range []struct {
		name string
		url  *string
	}{{"page", &p.URL}, {"page v4", &p.V4}, {"page v6", &p.V6}} {
		if *option.url == "" {
			continue
		}
		u, err := url.Parse(*option.url)
		if err == nil && u.Scheme == "http" && u.Host != "" {
			return fmt.Errorf("%s: %q must begin with https://: browsers keep no key for a page without TLS", option.name, *option.url)
		}
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(u.Host, ";, '\"") {
			return fmt.Errorf("%s: %q is not a URL such as https://knock.example.com", option.name, *option.url)
		}
		*option.url = u.JoinPath("/").String()
		if option.url != &p.URL {
			connect += " https://" + u.Host
		}
	}
	if p.URL != "" {
		app.ServePage(p.URL)
	}
	p.header = http.Header{
		"Content-Security-Policy": {"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'" + connect +
			"; manifest-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"},
		"Cross-Origin-Opener-Policy":   {"same-origin"},
		"Cross-Origin-Resource-Policy": {"same-origin"},
		"Permissions-Policy":           {"camera=(), microphone=(), geolocation=()"},
		// Not no-referrer: then browsers send no Origin with forms.
		"Referrer-Policy":        {"same-origin"},
		"X-Content-Type-Options": {"nosniff"},
	}
	return nil
}

//go:embed page
var pageFiles embed.FS

// pageTemplate is the page, for a view.
var pageTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.ParseFS(pageFiles, "page/page.tmpl"))
})

// pageMedia are the media types of the page's parts. Those of the system may be others,
// and reading them takes milliseconds.
var pageMedia = map[string]string{
	".css":         "text/css; charset=utf-8",
	".html":        "text/html; charset=utf-8",
	".js":          "text/javascript; charset=utf-8",
	".png":         "image/png",
	".svg":         "image/svg+xml",
	".webmanifest": "application/manifest+json",
}

// routes adds what the page consists of.
func (p *Page) routes(h *Handler, routes map[string]endpoint) {
	routes["/"] = endpoint{http.MethodGet: h.servePage, http.MethodHead: h.servePage, http.MethodPost: h.servePagePost}
	routes[""] = routes["/"]
	routes["/join"] = endpoint{http.MethodGet: h.serveJoin, http.MethodHead: h.serveJoin, http.MethodPost: h.serveJoinPost}
	routes["/page/address"] = endpoint{http.MethodGet: h.serveAddress}
	routes["/page/also"] = endpoint{http.MethodPost: h.serveAlso}
	entries, _ := pageFiles.ReadDir("page")
	for _, entry := range entries {
		if name := entry.Name(); path.Ext(name) != ".tmpl" {
			content, _ := pageFiles.ReadFile("page/" + name)
			serve := h.serveFile(name, content)
			routes["/page/"+name] = endpoint{http.MethodGet: serve, http.MethodHead: serve}
		}
	}
}

// serveFile serves a part of the page. It changes only with the program, so that
// browsers keep it, and ask after a while.
func (h *Handler) serveFile(name string, content []byte) func(http.ResponseWriter, *http.Request) {
	media := pageMedia[path.Ext(name)]
	tag := `"` + tagOf(content) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		h.Page.setHeader(w)
		w.Header().Set("Content-Type", media)
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", tag)
		if name == "worker.js" {
			w.Header().Set("Service-Worker-Allowed", base(r))
		}
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(content)
	}
}

func (p *Page) setHeader(w http.ResponseWriter) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
}

// base is the path at which the handler is mounted, as the browser sees it, with a
// slash at the end.
func base(r *http.Request) string {
	original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok || original.URL == nil {
		return "/"
	}
	prefix, ok := strings.CutSuffix(original.URL.EscapedPath(), r.URL.EscapedPath())
	if !ok || !strings.HasPrefix(prefix, "/") || strings.ContainsAny(prefix, ";, \\") {
		return "/"
	}
	return strings.TrimSuffix(prefix, "/") + "/"
}

// isSecure reports whether the browser came by HTTPS.
func isSecure(r *http.Request) bool {
	return r.TLS != nil || fromProxy(r) && r.Header.Get("X-Forwarded-Proto") == "https"
}

// render writes the page.
func (h *Handler) render(w http.ResponseWriter, status int, v *view) {
	var b bytes.Buffer
	if err := pageTemplate().Execute(&b, v); err != nil {
		panic(err) // it is part of the program, and tested
	}
	h.Page.setHeader(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// serveAddress tells whoever asks the address that they come from.
func (h *Handler) serveAddress(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cache-Control", "no-store")
	addr := clientAddr(r)
	if !addr.IsValid() {
		writeJSON(w, http.StatusBadRequest, errorBody{failNoAddress.text})
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Address netip.Addr `json:"address"`
	}{addr})
}

func (h *Handler) unmarshalPage(outer *knockapp.Options, d *caddyfile.Dispenser) error {
	if err := outer.Once(); err != nil {
		return err
	}
	h.Page = new(Page)
	switch args := d.RemainingArgs(); len(args) {
	case 0:
	case 1:
		h.Page.URL = args[0]
	default:
		return d.Errf("page takes one argument at most, its URL, got %d", len(args))
	}
	opts := knockapp.NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "v4":
			err = opts.Text(&h.Page.V4)
		case "v6":
			err = opts.Text(&h.Page.V6)
		default:
			err = opts.Unknown("v4", "v6")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
