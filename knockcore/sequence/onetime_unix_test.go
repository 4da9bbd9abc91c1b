// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package sequence

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestOneTimeUnwritable runs itself without root's privileges, which would let
// it write anyway.
func TestOneTimeUnwritable(t *testing.T) {
	const env = "SEQUENCE_TEST_DIR"
	if dir := os.Getenv(env); dir != "" {
		if _, err := OpenOneTime(filepath.Join(dir, "readonly")); err == nil || !strings.Contains(err.Error(), "writing") {
			t.Errorf("a file that is read-only: %v", err)
		}
		if _, err := OpenOneTime(filepath.Join(dir, "noblank")); err == nil || !strings.Contains(err.Error(), "leading blank") {
			t.Errorf("no leading blank, in a directory that is read-only: %v", err)
		}
		f, err := OpenOneTime(filepath.Join(dir, "blank"))
		if err != nil {
			t.Fatalf("leading blanks: %v", err)
		}
		if err := f.Use(f.Current()); err != nil {
			t.Errorf("leading blanks: %v", err)
		}
		return
	}
	dir, err := os.MkdirTemp("", "sequence-test")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, mode := range map[string]os.FileMode{"readonly": 0o444, "noblank": 0o666, "blank": 0o666} {
		content := "1,2\n"
		if name == "blank" {
			content = " 1,2\n"
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	// The test program may lie where nobody may look.
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "test")
	if err := os.WriteFile(copied, program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copied, "-test.run=^TestOneTimeUnwritable$")
	cmd.Dir = dir
	cmd.Env = []string{env + "=" + dir, "TMPDIR=/tmp"}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	// The exit code also tells of trouble with coverage files.
	if out, err := cmd.CombinedOutput(); !strings.HasPrefix(string(out), "PASS") {
		t.Errorf("%v: %s", err, out)
	}
}
