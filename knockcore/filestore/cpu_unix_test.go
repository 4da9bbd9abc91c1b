// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd

package filestore

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is what this process has used, which says more than the clock on a
// machine that others use too.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
