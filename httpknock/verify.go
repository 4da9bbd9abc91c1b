// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"net/http"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// serveVerify answers other proxies whether a request may pass: 200 or 401, without
// a body. (knocker-http.md section 8)
func (h *Handler) serveVerify(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(h.verify(r))
}

func (h *Handler) verify(r *http.Request) int {
	if isEarly(r) {
		return http.StatusTooEarly
	}
	if h.excluded.has(r) {
		return http.StatusOK
	}
	addr := clientAddr(r)
	if !addr.IsValid() {
		return http.StatusUnauthorized
	}
	for _, p := range h.allowed {
		if p.Contains(addr) {
			return http.StatusOK
		}
	}
	if gate := gatekeeper(r.Context(), h.app); gate == nil || !h.query.Match(gate.State().Table, addr) {
		return http.StatusUnauthorized
	}
	return http.StatusOK
}

// serveHealth tells whether knocks are taken.
func (h *Handler) serveHealth(w http.ResponseWriter, r *http.Request) {
	answerHealth(w, h.health(gatekeeper(r.Context(), h.app)))
}

// serveReady tells whether all is well. What is not well stands in the log and the
// admin API: here, anybody may ask.
func (h *Handler) serveReady(w http.ResponseWriter, r *http.Request) {
	gate := gatekeeper(r.Context(), h.app)
	problem := h.health(gate)
	if problem == "" && len(h.app.Problems()) > 0 {
		problem = "Not all is well; see the log"
	}
	answerHealth(w, problem)
}

// health says what is wrong, "" if nothing is.
func (h *Handler) health(gate *knockcore.Gatekeeper) string {
	switch {
	case gate == nil:
		return "Not started"
	case gate.Keyring().APIKeys() == 0 && h.Page == nil: // by whose invitations they come
		return "No API keys configured"
	default:
		return ""
	}
}

func answerHealth(w http.ResponseWriter, problem string) {
	w.Header().Set("Cache-Control", "no-store")
	if problem != "" {
		writeJSON(w, http.StatusServiceUnavailable, healthBody{"unhealthy", problem})
		return
	}
	writeJSON(w, http.StatusOK, healthBody{Status: "ok"})
}
