// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package browser

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"io"
	"sync"
)

// axe is the accessibility checker axe-core; see axe/README.md.
//
//go:embed axe/axe.min.js.gz
var axe []byte

var axeScript = sync.OnceValue(func() string {
	r, err := gzip.NewReader(bytes.NewReader(axe))
	if err != nil {
		panic(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		panic(err)
	}
	return string(b)
})

// Accessible checks what the page shows with axe-core: labels, roles, contrast and
// the rest of WCAG 2.2 A and AA, and best practices.
func (tab *Tab) Accessible(what string) {
	tab.t.Helper()
	Eval[bool](tab, axeScript()+"; true")
	for _, violation := range Eval[[]string](tab, `axe.run(document, {resultTypes: ["violations"]}).then((r) => r.violations.map((v) =>
		v.id + ": " + v.help + ": " + v.nodes.map((n) => n.html + " " + n.failureSummary).join("; ")))`) {
		tab.t.Errorf("%s is not accessible: %s", what, violation)
	}
}
