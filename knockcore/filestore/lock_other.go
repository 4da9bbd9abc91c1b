// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !darwin && !freebsd && !windows

package filestore

import (
	"errors"
	"os"
)

func tryLock(*os.File) error {
	return errors.New("this system has no way to lock a directory")
}

func syncDir(d *os.File) error { return d.Sync() }
