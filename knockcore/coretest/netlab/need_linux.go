// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// RequireEnv is the environment variable that, set to 1, turns the skips of
// [Need] into failures: for machines on which nothing may be skipped silently.
const RequireEnv = "KNOCK_REQUIRE_REAL"

// Need skips the test, with the reason, unless the process may make network
// namespaces and the programs are installed. It fails the test instead if
// RequireEnv is 1. "ip" is always needed.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	err := mayUnshare()
	for _, p := range append([]string{"ip"}, programs...) {
		if err != nil {
			break
		}
		_, err = exec.LookPath(p)
	}
	switch {
	case err == nil:
	case os.Getenv(RequireEnv) == "1":
		t.Fatalf("%s=1, but this machine cannot run the test: %v", RequireEnv, err)
	default:
		t.Skipf("needs a real network: %v", err)
	}
}

// mayUnshare tries to make a network namespace, once.
var mayUnshare = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("running as user %d, root is needed", os.Geteuid())
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		done <- unix.Unshare(unix.CLONE_NEWNET)
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("making a network namespace: %w", err)
	}
	return nil
})
