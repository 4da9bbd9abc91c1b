// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Command caddy-knock is the client of caddy-knock, without Caddy.
package main

import (
	"context"
	"os"

	"github.com/caddy-knock/caddy-knock/knockcore/knockcli"
)

func main() { os.Exit(knockcli.Run(context.Background(), os.Args[1:], knockcli.Options{})) }
