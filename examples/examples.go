// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package examples holds one folder a story; each is loaded and driven by a
// test. Quickstart is also what `caddy knock demo` runs.
package examples

import _ "embed" // for Quickstart

// Quickstart is the Caddyfile of examples/quickstart.
//
//go:embed quickstart/Caddyfile
var Quickstart string
