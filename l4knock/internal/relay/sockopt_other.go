// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package relay

import (
	"net"
	"time"
)

const canSplice = false

// splicer is of no use here.
type splicer struct{}

func setUserTimeout(*net.TCPConn, time.Duration) {}

// taken is taken for what was handed over.
func (e *endpoint) taken(moved int64) int64 { return moved }

// queued is not known here.
func (e *endpoint) queued() int64 { return 0 }

// unread is not known here.
func (e *endpoint) unread() int64 { return 0 }

// flush can't tell when the peer has everything.
func (e *endpoint) flush(time.Duration) {}

// wasReset can't tell here.
func (e *endpoint) wasReset() bool { return false }
