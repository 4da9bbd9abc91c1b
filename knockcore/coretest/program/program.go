// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package program builds the project's programs for tests and runs them, and
// finds those of others that tests need.
package program

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// RequireReal reports whether a missing program or privilege is a failure
// instead of a reason to skip: KNOCK_REQUIRE_REAL=1, as CI sets it.
func RequireReal() bool { return os.Getenv("KNOCK_REQUIRE_REAL") == "1" }

// Need finds a program that the test can't do without. If it is missing, the
// test is skipped, or fails where the real thing is required.
func Need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if path, err = exec.LookPath(filepath.Join(dir, name)); err == nil {
				break
			}
		}
	}
	if err != nil {
		Missing(t, "the program %s is not installed", name)
	}
	return path
}

// Missing ends a test that lacks something real.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if RequireReal() {
		t.Fatalf("KNOCK_REQUIRE_REAL=1, but "+format, args...)
	}
	t.Skipf(format, args...)
}

var built struct {
	sync.Mutex
	dir   string
	paths map[string]string
}

// ProgramsEnv names the environment variable with a folder of programs that are
// built already, by the last element of their package: CI builds each once for all
// tests.
const ProgramsEnv = "KNOCK_PROGRAMS"

// Build builds a main package of this module once per test process, unless it is
// in the folder that ProgramsEnv names, and returns the program's path.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if path := built.paths[pkg]; path != "" {
		return path
	}
	if dir := os.Getenv(ProgramsEnv); dir != "" {
		path := filepath.Join(dir, filepath.Base(pkg))
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "caddy-knock-programs-")
		if err != nil {
			t.Fatal(err)
		}
		built.dir, built.paths = dir, make(map[string]string)
	}
	path := filepath.Join(built.dir, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", path, "github.com/caddy-knock/caddy-knock/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, out)
	}
	built.paths[pkg] = path
	return path
}

// Clean removes what Build made; for TestMain.
func Clean() {
	built.Lock()
	defer built.Unlock()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
		built.dir, built.paths = "", nil
	}
}

// Main runs the tests and cleans up: func TestMain(m *testing.M) { program.Main(m) }.
func Main(m *testing.M) {
	code := m.Run()
	Clean()
	os.Exit(code)
}

// Caddy builds the ready Caddy of this project.
func Caddy(t testing.TB) string { return Build(t, "xcaddy") }

// Client builds caddy-knock.
func Client(t testing.TB) string { return Build(t, "knockcore/cmd/caddy-knock") }

// Process is a running program.
type Process struct {
	*exec.Cmd
	Log *Buffer
	// Ended is closed when the program has ended.
	Ended chan struct{}
}

// Start runs a program until the test ends; its output is shown if the test
// failed.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, Log: new(Buffer), Ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.Log, p.Log
	cmd.WaitDelay = 5 * time.Second // for children that outlive it
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	go func() {
		_ = cmd.Wait()
		close(p.Ended)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), p.Log.Tail(20_000))
		}
	})
	return p
}

// Kill ends the program at once, with SIGKILL, and waits for its end.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Signal(syscall.SIGKILL)
	<-p.Ended
}

// StartCaddy runs the ready Caddy with a Caddyfile in dir and waits until it
// listens on the addresses.
func StartCaddy(t testing.TB, dir, caddyfile string, listens ...string) *Process {
	t.Helper()
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(Caddy(t), "run", "--config", file)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+filepath.Join(dir, "data"), "XDG_CONFIG_HOME="+filepath.Join(dir, "config"), "HOME="+dir)
	p := Start(t, cmd)
	for _, address := range listens {
		p.AwaitListener(t, address)
	}
	return p
}

// AwaitListener waits until somebody listens on the TCP address.
func (p *Process) AwaitListener(t testing.TB, address string) {
	t.Helper()
	p.Await(t, "a listener on "+address, func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// Await polls until the condition holds; it fails the test if the program ends
// or half a minute passes before.
func (p *Process) Await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		select {
		case <-p.Ended:
			t.Fatalf("%s ended while waiting for %s:\n%s", filepath.Base(p.Path), what, p.Log.Tail(5000))
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s:\n%s", what, p.Log.Tail(5000))
		}
	}
}

// Await polls for what gives no event; it fails the test after half a minute.
func Await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// Run runs a program to its end and returns what it printed; a failure fails
// the test.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// Buffer collects output; it is safe for concurrent use.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write adds to the buffer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns all that was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Tail returns the last n bytes at most.
func (b *Buffer) Tail(n int) string {
	s := b.String()
	return s[max(0, len(s)-n):]
}
