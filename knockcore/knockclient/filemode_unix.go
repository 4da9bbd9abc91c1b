// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package knockclient

import "io/fs"

// openToOthers reports whether others than the owner have any access.
func openToOthers(mode fs.FileMode) bool { return mode.Perm()&0o077 != 0 }
