// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package relay

// spliceBurst is not called here.
func (d *direction) spliceBurst() (moved int64, ok bool, readErr, writeErr error) {
	return 0, false, nil, nil
}
