// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package knockapp

import (
	"os"
	"syscall"
)

// hangups are the signals of a terminal that goes away.
var hangups = []os.Signal{syscall.SIGHUP, syscall.SIGPIPE}
