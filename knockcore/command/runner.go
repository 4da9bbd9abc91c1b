// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The defaults of a Runner.
const (
	DefaultTimeout = 10 * time.Second
	DefaultRunning = 16
	// MaxOutput is how much of what a command prints is kept, in bytes.
	MaxOutput = 4096
	// leftoverDelay is how long what a command left behind may keep its output open.
	leftoverDelay = 500 * time.Millisecond
)

// defaultPath is the PATH of commands, and where programs are looked for.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Runner runs commands, so many at a time and each for so long at most. It is
// safe for concurrent use.
type Runner struct {
	timeout time.Duration
	slots   chan struct{}
}

// NewRunner makes a Runner; 0 means the defaults.
func NewRunner(timeout time.Duration, running int) *Runner {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	if running <= 0 {
		running = DefaultRunning
	}
	return &Runner{timeout: timeout, slots: make(chan struct{}, running)}
}

// Result is what came of a command.
type Result struct {
	// Output is what it printed on standard output and standard error, MaxOutput
	// bytes at most; Cut says that there was more.
	Output string
	Cut    bool
	// Took is how long it ran, Waited how long it waited for its turn.
	Took, Waited time.Duration
	// Err is nil if it ended with status 0.
	Err error
}

// Run runs a command and waits for its end. If ctx is done before its turn comes,
// it is not run.
func (r *Runner) Run(ctx context.Context, argv []string) Result {
	began := time.Now()
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return Result{Waited: time.Since(began), Err: fmt.Errorf("waiting for other commands: %w", context.Cause(ctx))}
	}
	defer func() { <-r.slots }()
	res := Result{Waited: time.Since(began)}
	path, err := Find(argv[0])
	if err != nil {
		res.Err = err
		return res
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Env = []string{"PATH=" + defaultPath, "LANG=C.UTF-8"}
	cmd.Dir = rootDir
	out := new(head)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = leftoverDelay
	kill := ownGroup(cmd)
	var late atomic.Bool
	cmd.Cancel = func() error {
		late.Store(true)
		return kill()
	}
	start := time.Now()
	err = cmd.Run()
	res.Took = time.Since(start)
	res.Output, res.Cut = out.text()
	switch {
	case late.Load():
		err = fmt.Errorf("killed after %v", r.timeout)
	case errors.Is(err, exec.ErrWaitDelay):
		// It ended well, but something that it started holds its output. What it
		// printed is in; the rest must not live on our account.
		_ = kill()
		err = nil
	}
	if err != nil {
		res.Err = fmt.Errorf("%s: %w", argv[0], err)
	}
	return res
}

// head keeps the beginning of what is written to it.
type head struct {
	mu   sync.Mutex
	kept []byte
	more bool
}

var _ io.Writer = (*head)(nil)

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(len(p), MaxOutput-len(h.kept))
	h.kept = append(h.kept, p[:n]...)
	h.more = h.more || n < len(p)
	return len(p), nil
}

func (h *head) text() (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(h.kept), "\uFFFD")), h.more
}
