// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package command

import "os/exec"

const rootDir = ""

// Find finds a program.
func Find(program string) (string, error) { return exec.LookPath(program) }

// ownGroup returns what kills the command; its children are on their own.
func ownGroup(cmd *exec.Cmd) func() error {
	return func() error { return cmd.Process.Kill() }
}
