// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package knockcli is the command tree of caddy-knock: the same in the
// standalone client and, without anything of Caddy in here, under `caddy knock`.
//
// A command writes data to standard output and everything else to standard
// error. The exit codes are [ExitOK] and its neighbours; they mean the same for
// all commands.
package knockcli
