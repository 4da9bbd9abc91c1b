// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package command

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const rootDir = "/"

// Find finds a program: a path, or a name in the usual directories.
func Find(program string) (string, error) {
	if strings.Contains(program, "/") {
		if !filepath.IsAbs(program) {
			return "", fmt.Errorf("program %s: write the whole path, which begins with /", program)
		}
		return program, runnable(program)
	}
	for dir := range strings.SplitSeq(defaultPath, ":") {
		if path := filepath.Join(dir, program); runnable(path) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no program %s in %s", program, defaultPath)
}

func runnable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("program %s: %w", path, errors.Unwrap(err))
	case info.IsDir() || info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not a program that may be run", path)
	}
	return nil
}

// ownGroup gives the command a process group of its own, and returns what kills
// all of it.
func ownGroup(cmd *exec.Cmd) func() error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
}
