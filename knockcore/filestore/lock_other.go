// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !darwin && !freebsd && !windows

package filestore

import (
	"errors"
	"os"
)

func tryLock(*os.File) error {
	return errors.New("locking a directory is not implemented on this system")
}

func syncDir(d *os.File) error { return d.Sync() }
