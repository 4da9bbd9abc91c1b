// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Command xcaddy is a Caddy with the standard modules, caddy-l4 and caddy-knock:
// what `xcaddy build` makes, without the xcaddy tool.
//
//	go run ./xcaddy knock demo
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/mholt/caddy-l4"

	_ "github.com/caddy-knock/caddy-knock"
)

func main() { caddycmd.Main() }
