// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	netnsDir = "/run/netns"
	prefix   = "knocklab"
	// commandTimeout bounds every command that a namespace runs.
	commandTimeout = 30 * time.Second
)

var (
	labs  atomic.Int64
	sweep sync.Once
)

// Lab is a set of network namespaces that end with the test.
type Lab struct {
	t  testing.TB
	id int64
}

// New makes an empty lab. It calls [Need] for what itself needs.
func New(t testing.TB) *Lab {
	t.Helper()
	Need(t)
	sweep.Do(removeLeftovers)
	return &Lab{t: t, id: labs.Add(1)}
}

// removeLeftovers deletes the namespaces of test processes that exist no more.
func removeLeftovers() {
	names, _ := filepath.Glob(filepath.Join(netnsDir, prefix+"-*"))
	for _, name := range names {
		name = filepath.Base(name)
		pid, _, _ := strings.Cut(strings.TrimPrefix(name, prefix+"-"), "-")
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) {
			_ = exec.Command("ip", "netns", "del", name).Run()
		}
	}
}

// NS is a network namespace.
type NS struct {
	// Name is the full name, as `ip netns` lists it.
	Name string

	t     testing.TB
	fd    int
	links int
}

// NS makes a namespace with its loopback up. The name only needs to be unique
// within the lab.
func (l *Lab) NS(name string) *NS {
	l.t.Helper()
	n := &NS{Name: fmt.Sprintf("%s-%d-%d-%s", prefix, os.Getpid(), l.id, name), t: l.t}
	l.ip("netns", "add", n.Name)
	l.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.Name).Run() })
	fd, err := unix.Open(filepath.Join(netnsDir, n.Name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		l.t.Fatalf("opening namespace %s: %v", n.Name, err)
	}
	n.fd = fd
	l.t.Cleanup(func() { _ = unix.Close(fd) })
	n.Run("ip", "link", "set", "lo", "up")
	n.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	n.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	return n
}

// FD is an open file descriptor of the namespace, valid until the test ends.
func (n *NS) FD() int { return n.fd }

// Link joins two namespaces with a veth pair and gives each end its addresses
// (IPv4 or IPv6, with prefix length). It returns the names of the devices: eth0,
// eth1, … in each namespace, in order of making.
func (l *Lab) Link(a *NS, aAddrs []string, b *NS, bAddrs []string) (aDev, bDev string) {
	l.t.Helper()
	aDev, bDev = a.nextDevice(), b.nextDevice()
	l.ip("link", "add", aDev, "netns", a.Name, "type", "veth", "peer", "name", bDev, "netns", b.Name)
	a.up(aDev, aAddrs)
	b.up(bDev, bAddrs)
	return aDev, bDev
}

func (n *NS) nextDevice() string {
	n.links++
	return "eth" + strconv.Itoa(n.links-1)
}

func (n *NS) up(dev string, addrs []string) {
	n.t.Helper()
	n.Run("ip", "link", "set", dev, "up")
	for _, a := range addrs {
		n.Addr(dev, a)
	}
}

// Addr adds an address, usable at once (without duplicate address detection).
func (n *NS) Addr(dev, addr string) {
	n.t.Helper()
	args := []string{"ip", "addr", "add", addr, "dev", dev}
	if strings.Contains(addr, ":") {
		args = append(args, "nodad")
	}
	n.Run(args...)
}

// DefaultRoute sends everything else to the gateways, one for each family.
func (n *NS) DefaultRoute(gateways ...string) {
	n.t.Helper()
	for _, g := range gateways {
		family := "-4"
		if strings.Contains(g, ":") {
			family = "-6"
		}
		n.Run("ip", family, "route", "add", "default", "via", g)
	}
}

// Forward makes the namespace a router of both families.
func (n *NS) Forward() {
	n.t.Helper()
	n.Sysctl("net.ipv4.ip_forward", "1")
	n.Sysctl("net.ipv6.conf.all.forwarding", "1")
}

// Sysctl sets a kernel parameter of the namespace.
func (n *NS) Sysctl(name, value string) {
	n.t.Helper()
	n.Run("sysctl", "-qw", name+"="+value)
}

// Command returns a command that will run in the namespace; it is killed with
// ctx. Its environment is that of the test.
func (n *NS) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name}, args...)...)
}

// Try runs a command in the namespace and returns all that it printed.
func (n *NS) Try(args ...string) (string, error) { return n.TryInput("", args...) }

// TryInput is Try with text on the command's standard input.
func (n *NS) TryInput(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := n.Command(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Run is Try that fails the test if the command fails. It must be called from
// the goroutine of the test.
func (n *NS) Run(args ...string) string { n.t.Helper(); return n.RunInput("", args...) }

// RunInput is Run with text on the command's standard input, such as a ruleset
// for `nft -f -`.
func (n *NS) RunInput(stdin string, args ...string) string {
	n.t.Helper()
	out, err := n.TryInput(stdin, args...)
	if err != nil {
		n.t.Fatalf("%s: %s: %v\n%s", n.Name, strings.Join(args, " "), err, out)
	}
	return out
}

// Do runs fn inside the namespace, on a thread of its own, and waits for it.
// Sockets that fn opens belong to the namespace for good; goroutines that fn
// starts run outside. fn must not call t.Fatal.
func (n *NS) Do(fn func()) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Setns(n.fd, unix.CLONE_NEWNET)
		if err == nil {
			fn()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		n.t.Errorf("entering namespace %s: %v", n.Name, err)
	}
}

func (l *Lab) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
