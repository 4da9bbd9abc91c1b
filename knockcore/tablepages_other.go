// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package knockcore

// wantHugePages does nothing: see Linux.
func wantHugePages([]slot) {}
