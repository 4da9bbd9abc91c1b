// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build race

package wire

// peersRace tells that the race detector is on, under which sync.Pool forgets.
const peersRace = true
