// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd

package filestore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// tryLock locks the file for this open file alone; errLocked if somebody has it.
func tryLock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errLocked
	}
	return os.NewSyscallError("flock", err)
}

// syncDir makes new names in a directory survive a power loss.
func syncDir(d *os.File) error { return d.Sync() }
