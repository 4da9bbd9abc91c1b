// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
	"sync"
)

// openAPI describes the endpoints, in OpenAPI 3.1.
//
//go:embed openapi.json
var openAPI []byte

func (h *Handler) serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI)
}

// serveDocs shows the same to people, on a page that loads nothing from anywhere.
func (h *Handler) serveDocs(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(docsPage())
}

// docsPage makes the page out of the document, once.
var docsPage = sync.OnceValue(func() []byte {
	type response struct {
		Ref         string `json:"$ref"`
		Description string
	}
	var doc struct {
		Info  struct{ Title, Version, Summary, Description string }
		Paths map[string]map[string]struct {
			Summary, Description string
			RequestBody          struct{ Description string }
			Parameters           []struct{ Name, Description string }
			Responses            map[string]response
		}
		Components struct {
			Responses map[string]response
			Schemas   map[string]struct {
				Properties map[string]struct{ Description string }
			}
		}
	}
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		panic(err) // it is part of the program, and tested
	}
	page := template.Must(template.New("docs").Funcs(template.FuncMap{
		"upper": strings.ToUpper,
		"text": func(r response) string {
			if name, ok := strings.CutPrefix(r.Ref, "#/components/responses/"); ok {
				return doc.Components.Responses[name].Description
			}
			return r.Description
		},
	}).Parse(docsTemplate))
	var b bytes.Buffer
	if err := page.Execute(&b, doc); err != nil {
		panic(err)
	}
	return b.Bytes()
})

//go:embed docs.tmpl
var docsTemplate string
