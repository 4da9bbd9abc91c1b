// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	_ "embed"
	"net/http"
)

// openAPI describes the endpoints, in OpenAPI 3.1.
//
//go:embed openapi.json
var openAPI []byte

func (h *Handler) serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI)
}

// docsPage shows the same to people. It loads nothing from anywhere.
//
//go:embed docs.html
var docsPage []byte

func (h *Handler) serveDocs(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_, _ = w.Write(docsPage)
}
