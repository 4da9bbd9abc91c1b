// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// TestForeignTable: a table of our name that is not ours is left alone.
func TestForeignTable(t *testing.T) {
	w := newTown(t)
	w.host.RunInput("table inet caddy_knock { chain theirs { type filter hook input priority 0; tcp dport 1 drop; }; }", "nft", "-f", "-")
	before := w.host.Run("nft", "list", "ruleset")
	e, err := New(Config{NetNS: w.host.FD()})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Setup(t.Context(), []*knockcore.Service{service(t, "ssh", "tcp/22")}); !errors.Is(err, ErrForeign) {
		t.Errorf("setup: %v", err)
	}
	if _, err := Remove(t.Context(), Config{NetNS: w.host.FD()}); !errors.Is(err, ErrForeign) {
		t.Errorf("remove: %v", err)
	}
	if after := w.host.Run("nft", "list", "ruleset"); after != before {
		t.Errorf("it was touched:\n%s", after)
	}
	// The engine is none the worse for it.
	w.host.Run("nft", "delete", "table", "inet", DefaultTable)
	if err := e.Setup(t.Context(), []*knockcore.Service{service(t, "ssh", "tcp/22")}); err != nil {
		t.Errorf("setup when it is gone: %v", err)
	}
	if err := e.Stop(t.Context(), knockcore.ExitRemove); err != nil {
		t.Error(err)
	}
}

// TestForeignLater: also a table that others put in the place of ours is left
// alone, and the check says so.
func TestForeignLater(t *testing.T) {
	w := newTown(t)
	e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
	w.host.RunInput("delete table inet caddy_knock; table inet caddy_knock { chain theirs { }; }", "nft", "-f", "-")
	w.Eventually(20*time.Second, "noticed", func() bool { return errors.Is(e.Check(t.Context()), ErrForeign) })
	if err := e.Open(t.Context(), window(knocker4, "ssh", time.Hour)); !errors.Is(err, ErrForeign) {
		t.Errorf("open: %v", err)
	}
	if text := w.host.Run("nft", "list", "ruleset"); !strings.Contains(text, "theirs") || strings.Contains(text, markerSet) {
		t.Errorf("it was touched:\n%s", text)
	}
	w.host.Run("nft", "delete", "table", "inet", DefaultTable)
	w.Eventually(20*time.Second, "healed when it is gone", func() bool { return e.Check(t.Context()) == nil })
	open(t, e, window(knocker4, "ssh", time.Hour))
}

// TestBusy: a table has one keeper, in this process and among all.
func TestBusy(t *testing.T) {
	w := newTown(t)
	e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
	other, err := New(Config{NetNS: w.host.FD()})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Setup(t.Context(), nil); !errors.Is(err, ErrBusy) {
		t.Errorf("a second engine: %v", err)
	}
	if err := e.Check(t.Context()); err != nil {
		t.Errorf("the first engine: %v", err)
	}
	second := start(t, w.host, Config{Table: "another"}, service(t, "ssh", "tcp/22"))
	if err := second.Check(t.Context()); err != nil {
		t.Error(err)
	}

	// As the mark of a process that lives, and of one that died.
	if err := e.Stop(t.Context(), knockcore.ExitKeep); err != nil {
		t.Fatal(err)
	}
	since, err := startTime(1)
	if err != nil {
		t.Fatal(err)
	}
	mark := func(since uint64) {
		w.host.Run("nft", "flush", "set", "inet", DefaultTable, markerSet)
		w.host.Run("nft", "add", "element", "inet", DefaultTable, markerSet, fmt.Sprintf("{ 1 comment \"pid 1 since %d\" }", since))
	}
	mark(since)
	if err := e.Setup(t.Context(), nil); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "process 1") {
		t.Errorf("a table of another process: %v", err)
	}
	if _, err := Remove(t.Context(), Config{NetNS: w.host.FD()}); !errors.Is(err, ErrBusy) {
		t.Errorf("removing it: %v", err)
	}
	mark(since + 1)
	if removed, err := Remove(t.Context(), Config{NetNS: w.host.FD()}); err != nil || !removed {
		t.Errorf("removing the table of a dead process: %v %v", removed, err)
	}
	if removed, err := Remove(t.Context(), Config{NetNS: w.host.FD()}); err != nil || removed {
		t.Errorf("removing what is not there: %v %v", removed, err)
	}
	if err := e.Setup(t.Context(), nil); err != nil {
		t.Errorf("setup: %v", err)
	}
	if err := e.Stop(t.Context(), knockcore.ExitRemove); err != nil {
		t.Error(err)
	}
}

// TestTenThousand opens, extends, closes and forgets 10,000 windows.
func TestTenThousand(t *testing.T) {
	for _, destroys := range []int{0, -1} { // as this kernel can, and as old ones
		w := newTown(t)
		e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"), service(t, "web", "tcp/80"))
		e.runner.Load().keeper.(*gate).k.destroys = destroys
		const n = 10_000
		var all []knockcore.Window
		for i := range n {
			addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			if i%2 == 1 {
				addr = netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(i >> 8), 14: byte(i)})
			}
			p := knockcore.AddrPrefix(addr)
			if i%4 == 3 {
				p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 6: byte(i >> 8), 7: byte(i)}), 64)
			}
			all = append(all, knockcore.Window{Prefix: p, Service: []string{"ssh", "web"}[i%3%2], Expires: time.Now().Add(10 * time.Minute)})
		}
		check := func(when string, want []knockcore.Window) {
			t.Helper()
			got := list(t, e)
			if len(got) != len(want) {
				t.Errorf("%s: %d windows are listed, %d were asked for", when, len(got), len(want))
			}
			for _, wd := range want {
				k, err := keyOf(wd)
				if err != nil {
					t.Fatal(err)
				}
				if off := got[k].Sub(wd.Expires); off.Abs() > time.Minute {
					t.Fatalf("%s: %v ends at %v, asked was %v", when, k, got[k], wd.Expires)
				}
			}
		}
		open(t, e, all...)
		check("opened", all)
		for i := range all {
			all[i].Expires = time.Now().Add(time.Hour)
		}
		open(t, e, all...)
		check("extended", all)
		for i := range all[:n/2] {
			all[i].Expires = time.Now().Add(3 * time.Second)
		}
		open(t, e, all[:n/2]...)
		if err := e.Close(t.Context(), all[9*n/10:]...); err != nil {
			t.Fatal(err)
		}
		w.Eventually(60*time.Second, "half of them run out", func() bool { return len(list(t, e)) == 4*n/10 })
		check("run out and closed", all[n/2:9*n/10])
		open(t, e, all[9*n/10:]...) // what was closed opens again
		check("opened again", all[n/2:])
		for i := range all[:n/2] { // and what ran out
			all[i].Expires = time.Now().Add(time.Hour)
		}
		open(t, e, all[:n/2]...)
		check("all opened again", all)
		if k := e.runner.Load().keeper.(*gate).k.destroys; destroys != 0 && k != destroys {
			t.Errorf("the old way was not tried: %d", k)
		}
		if err := e.Stop(t.Context(), knockcore.ExitRemove); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnprivileged: without the right to change nftables the error says what to
// do. With only that right, as Caddy's unit gives it, all works.
func TestUnprivileged(t *testing.T) {
	netlab.Need(t, "nft", "setpriv")
	w := newTown(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A copy where nobody may read it.
	exe := filepath.Join("/tmp", fmt.Sprintf("nft-test-%d", os.Getpid()))
	if out, err := exec.Command("install", "-m", "755", self, exe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = os.Remove(exe) })
	run := func(caps string) string {
		cmd := w.host.Command(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
			"--inh-caps="+caps, "--ambient-caps="+caps, "--bounding-set="+caps, exe, "-test.run=^TestUnprivilegedHelper$", "-test.v")
		cmd.Env = append(os.Environ(), "KNOCK_NFT_HELPER=1")
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := run("-all"); !strings.Contains(out, "permission: true") || !strings.Contains(out, "setcap cap_net_admin+ep "+exe) || !strings.Contains(out, "AmbientCapabilities=CAP_NET_ADMIN") {
		t.Errorf("without capabilities:\n%s", out)
	}
	if out := run("-all,+net_admin"); !strings.Contains(out, "all well") {
		t.Errorf("with CAP_NET_ADMIN:\n%s", out)
	}
}

func TestUnprivilegedHelper(t *testing.T) {
	if os.Getenv("KNOCK_NFT_HELPER") != "1" {
		t.Skip("part of TestUnprivileged")
	}
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Setup(t.Context(), []*knockcore.Service{service(t, "ssh", "tcp/22")}); err != nil {
		fmt.Println("permission:", errors.Is(err, ErrPermission), err)
		return
	}
	open(t, e, window(knocker4, "ssh", time.Hour))
	if len(list(t, e)) != 1 {
		t.Fatal("no window")
	}
	if out, err := exec.Command("id", "-u").Output(); err != nil || strings.TrimSpace(string(out)) != "65534" {
		t.Fatalf("running as %s: %v", out, err)
	}
	if err := e.Stop(t.Context(), knockcore.ExitRemove); err != nil {
		t.Fatal(err)
	}
	fmt.Println("all well")
}

// TestStopLeavesNothing: no goroutine and no file descriptor outlives Stop.
func TestStopLeavesNothing(t *testing.T) {
	w := newTown(t)
	fds := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	goroutines, files := runtime.NumGoroutine(), fds()
	for range 10 {
		e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
		open(t, e, window(knocker4, "ssh", time.Hour))
		w.host.Run("nft", "flush", "ruleset")
		if err := e.Stop(t.Context(), knockcore.ExitClose); err != nil {
			t.Fatal(err)
		}
	}
	foreign, err := New(Config{NetNS: w.host.FD(), Table: "theirs"})
	if err != nil {
		t.Fatal(err)
	}
	w.host.Run("nft", "add", "table", "inet", "theirs")
	if err := foreign.Setup(t.Context(), nil); err == nil {
		t.Error("set up in a table of others")
	}
	w.Eventually(20*time.Second, "all is gone", func() bool { return runtime.NumGoroutine() <= goroutines && fds() <= files })
}

// TestHighDescriptors: a busy server has thousands of files open; the library's
// own transport panics there.
func TestHighDescriptors(t *testing.T) {
	w := newTown(t)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 2000 {
		t.Skipf("only %d files may be open", limit.Cur)
	}
	for range 1100 {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
	}
	e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
	if fd := e.runner.Load().keeper.(*gate).k.link.fd; fd < 1024 {
		t.Fatalf("the test tests nothing: descriptor %d", fd)
	}
	open(t, e, window(knocker4, "ssh", time.Hour))
	w.host.Run("nft", "flush", "ruleset")
	waitHealed(t, w, e)
	if len(list(t, e)) != 1 {
		t.Error("no window")
	}
}

// TestProtectSwitch: protection comes and goes with the windows in place.
func TestProtectSwitch(t *testing.T) {
	w := newTown(t)
	w.host.Echo("tcp", ":22")
	svc := service(t, "ssh", "tcp/22")
	e := start(t, w.host, Config{}, svc)
	open(t, e, window(knocker4, "ssh", time.Hour), window("10.0.0.0/9", "ssh", time.Hour))
	for i, protect := range []bool{true, false, true} {
		if err := e.Configure(Config{NetNS: w.host.FD(), Protect: protect}); err != nil {
			t.Fatal(err)
		}
		if i == 2 { // over a restart
			if err := e.Stop(t.Context(), knockcore.ExitKeep); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Setup(t.Context(), []*knockcore.Service{svc}); err != nil {
			t.Fatalf("protect %v: %v", protect, err)
		}
		if got := list(t, e); len(got) != 2 {
			t.Errorf("protect %v: %v", protect, got)
		}
		_, err := w.host.Try("nft", "add", "element", "inet", DefaultTable, markerSet, "{ 7 }")
		if (err != nil) != protect {
			t.Errorf("protect %v: another's change: %v", protect, err)
		}
	}
	w.want(t, w.knocker, "tcp", host4, "22", netlab.Open, "after all")
	w.want(t, w.stranger, "tcp", host4, "22", netlab.Filtered, "after all")
}

// TestCancelled: a call whose context ends while it waits does nothing.
func TestCancelled(t *testing.T) {
	w := newTown(t)
	e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
	o := e.runner.Load()
	blocked, block := make(chan struct{}), make(chan struct{})
	go func() {
		_ = o.do(&request{ctx: context.Background(), run: func() error { close(blocked); <-block; return nil }})
	}()
	<-blocked
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- e.Open(ctx, window(knocker4, "ssh", time.Hour)) }()
	w.Eventually(20*time.Second, "the call waits", func() bool { return len(o.requests) == 1 })
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v", err)
	}
	close(block)
	for range 200 { // and one whose context has ended before
		if err := e.Open(ctx, window(knocker4, "ssh", time.Hour)); !errors.Is(err, context.Canceled) {
			t.Fatalf("open, cancelled before: %v", err)
		}
	}
	if got := list(t, e); len(got) != 0 {
		t.Errorf("open after all: %v", got)
	}
}
