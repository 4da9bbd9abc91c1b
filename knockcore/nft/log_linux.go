// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// expr asks for each packet at once: otherwise the kernel waits for others, up to a
// second.
func (l *logTo) expr() expr.Any {
	return &expr.Log{
		Key:   1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN | 1<<unix.NFTA_LOG_QTHRESHOLD,
		Group: l.group, Snaplen: l.size, QThreshold: 1,
	}
}
