// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package sequence

import "os"

// keepOwner has nothing to do here.
func keepOwner(*os.File, os.FileInfo) {}

// syncDir: directories cannot be synced here; the rename is the file system's.
func syncDir(string) error { return nil }
