// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// enter moves the calling goroutine into the network namespace, for good: its
// thread ends with it. Programs that it starts run there too.
func enter(netns int) error {
	if netns == 0 {
		return nil
	}
	runtime.LockOSThread()
	if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the network namespace: %w", err)
	}
	return nil
}
