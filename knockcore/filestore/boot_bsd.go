// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build darwin || freebsd

package filestore

import (
	"encoding/hex"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// systemBoot asks the kernel. CLOCK_MONOTONIC goes on while a Mac sleeps;
// FreeBSD's may not, by which a grant lasts longer.
func systemBoot() (string, time.Duration) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return "", 0
	}
	return kernelBootID(), time.Duration(ts.Nano())
}

var kernelBootID = sync.OnceValue(func() string {
	if runtime.GOOS == "darwin" {
		id, err := unix.Sysctl("kern.bootsessionuuid")
		if err != nil {
			return ""
		}
		return id
	}
	id, err := unix.SysctlRaw("kern.boot_id")
	if err != nil {
		return ""
	}
	return hex.EncodeToString(id)
})
