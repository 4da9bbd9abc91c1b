// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes what was written to the file survive a power loss.
func datasync(f *os.File) error {
	return os.NewSyscallError("fdatasync", onFile(f, unix.Fdatasync))
}

// reserve gives the file its size, with room on the disk if the file system can.
func reserve(f *os.File, size int64) error {
	err := onFile(f, func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	return os.NewSyscallError("fallocate", err)
}

// onFile makes a system call on a file that can't be closed meanwhile.
func onFile(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = conn.Control(func(fd uintptr) {
		for callErr = unix.EINTR; errors.Is(callErr, unix.EINTR); {
			callErr = call(int(fd))
		}
	})
	if err != nil {
		return err
	}
	return callErr
}
