// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package knockserver

// fileLimit stands for a system without a file limit of its own.
func fileLimit() int { return 1 << 16 }
