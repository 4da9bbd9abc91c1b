// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package knockclient

import "io/fs"

// openToOthers reports false: the mode says nothing about access here.
func openToOthers(fs.FileMode) bool { return false }
