// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package caddyknock plugs all modules of caddy-knock into a Caddy build:
//
//	xcaddy build --with github.com/mholt/caddy-l4 --with github.com/caddy-knock/caddy-knock
package caddyknock

import (
	_ "github.com/caddy-knock/caddy-knock/firewallmod"        // firewalls
	_ "github.com/caddy-knock/caddy-knock/httpknock"          // HTTP handler, matchers and wrappers
	_ "github.com/caddy-knock/caddy-knock/knockcore/knockapp" // the app, its stores and commands
	_ "github.com/caddy-knock/caddy-knock/l4knock"            // layer4 handlers and matchers
)
