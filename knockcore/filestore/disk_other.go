// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package filestore

import "os"

// datasync makes what was written to the file survive a power loss.
func datasync(f *os.File) error { return f.Sync() }

// reserve gives the file its size.
func reserve(f *os.File, size int64) error { return f.Truncate(size) }
