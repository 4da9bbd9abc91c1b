// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package relay

// canWait: sockets here are read like any other stream.
const canWait = false

type socketReader struct{}

func (d *direction) copySocket() (readErr, writeErr error) { return d.copyStream() }
