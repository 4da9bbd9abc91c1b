// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// lab is a set of network namespaces, a folder, and programs that run; close ends
// all of it.
type lab struct {
	ctx  context.Context
	dir  string
	ends []func()
}

// spaces counts the namespaces of all labs.
var spaces atomic.Int64

func newLab(ctx context.Context) (*lab, error) {
	dir, err := os.MkdirTemp("", "knock-benchmark-")
	if err != nil {
		return nil, err
	}
	return &lab{ctx: ctx, dir: dir, ends: []func(){func() { _ = os.RemoveAll(dir) }}}, nil
}

func (l *lab) close() {
	for i := len(l.ends) - 1; i >= 0; i-- {
		l.ends[i]()
	}
}

func mayUseNamespaces() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: network namespaces need root", errMissing)
	}
	return need("ip")
}

// space makes a namespace.
func (l *lab) space(name string) (string, error) {
	name = fmt.Sprintf("knockbench-%d-%s-%d", os.Getpid(), name, spaces.Add(1))
	if err := l.run("ip", "netns", "add", name); err != nil {
		return "", err
	}
	l.ends = append(l.ends, func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	return name, l.in(name, "ip", "link", "set", "lo", "up")
}

// link joins two namespaces by devices of these names.
func (l *lab) link(a, deviceA, addressA, b, deviceB, addressB string) error {
	if err := l.run("ip", "link", "add", deviceA, "netns", a, "type", "veth", "peer", "name", deviceB, "netns", b); err != nil {
		return err
	}
	for _, end := range [][3]string{{a, deviceA, addressA}, {b, deviceB, addressB}} {
		if err := l.in(end[0], "ip", "addr", "add", end[2], "dev", end[1]); err != nil {
			return err
		}
		if err := l.in(end[0], "ip", "link", "set", end[1], "up"); err != nil {
			return err
		}
	}
	return nil
}

// run runs a program to its end.
func (l *lab) run(args ...string) error { return l.feed("", args...) }

// in runs a program in a namespace to its end.
func (l *lab) in(space string, args ...string) error {
	return l.run(append([]string{"ip", "netns", "exec", space}, args...)...)
}

// feed is run with text on standard input.
func (l *lab) feed(input string, args ...string) error {
	cmd := exec.CommandContext(l.ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// start runs a program in a namespace until the lab is closed. Its output goes to
// the returned file.
func (l *lab) start(space string, args ...string) (log string, err error) {
	p, err := l.launch(append([]string{"ip", "netns", "exec", space}, args...)...)
	if err != nil {
		return "", err
	}
	return p.log, nil
}

// process is a program that runs until the lab is closed, or until it is killed.
type process struct {
	pid  int
	log  string // the file with its output
	kill func()
}

// launch runs a program here.
func (l *lab) launch(args ...string) (*process, error) {
	f, err := os.CreateTemp(l.dir, filepath.Base(args[0])+"-*.log")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.Env = append(os.Environ(), "HOME="+l.dir, "XDG_DATA_HOME="+l.dir, "XDG_CONFIG_HOME="+l.dir)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	kill := sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	l.ends = append(l.ends, kill)
	return &process{pid: cmd.Process.Pid, log: f.Name(), kill: kill}, nil
}

// file writes a file into the lab's folder.
func (l *lab) file(name, text string) (string, error) {
	name = filepath.Join(l.dir, name)
	return name, os.WriteFile(name, []byte(text), 0o600)
}

// await waits until a log says something.
func (l *lab) await(log, what string) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(log)
		if err != nil || bytes.Contains(text, []byte(what)) {
			return err
		}
		if time.Now().After(deadline) || l.ctx.Err() != nil {
			return fmt.Errorf("waiting in vain for %q: %s", what, tail(log))
		}
	}
}

// tail is the end of a log.
func tail(log string) []byte {
	text, _ := os.ReadFile(log)
	return text[max(0, len(text)-1000):]
}

// inside runs fn on a thread within the namespace; programs that it starts, and
// sockets that it opens, are there too.
func inside(space string, fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			fd, err := unix.Open("/run/netns/"+space, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return err
			}
			return fn()
		}()
	}()
	return <-done
}

// need finds programs.
func need(names ...string) error {
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: the program %s is not installed", errMissing, name)
		}
	}
	return nil
}

// build builds a program of this module, unless the path is given.
func (l *lab) build(path, pkg string) (string, error) {
	if path != "" {
		return path, nil
	}
	path = filepath.Join(l.dir, filepath.Base(pkg))
	return path, l.run("go", "build", "-o", path, "github.com/caddy-knock/caddy-knock/"+pkg)
}
