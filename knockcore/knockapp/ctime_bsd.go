// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build darwin || freebsd || netbsd

package knockapp

import (
	"os"
	"syscall"
)

// changeTime is when the inode changed last, in ns: it moves even if somebody
// sets the modification time back.
func changeTime(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ctimespec.Nano()
	}
	return 0
}
