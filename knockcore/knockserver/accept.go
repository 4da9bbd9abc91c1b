// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver

import (
	"errors"
	"net"
	"slices"
	"syscall"
)

// final are the errors of the system that say that a listener is none, or no
// longer. All others pass: the process or the system is out of files or memory, a
// peer was gone before it was accepted, a firewall forbade it.
var final = []syscall.Errno{syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK, syscall.EOPNOTSUPP, syscall.EFAULT}

// temporary reports whether accepting may go on after err.
func temporary(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return !slices.Contains(final, errno)
	}
	// Listeners of others have no other way to say so.
	var passing interface{ Temporary() bool }
	return errors.As(err, &passing) && passing.Temporary()
}

// outOfFiles reports whether accepting needs a file to be closed first.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
