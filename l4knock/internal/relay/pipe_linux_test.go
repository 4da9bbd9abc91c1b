// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// lent is how many pipes are in use.
func lent() int {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	return pipes.live[0] + pipes.live[1] - len(pipes.idle[0]) - len(pipes.idle[1])
}

// descriptors is how many this process has open.
func descriptors(tb testing.TB) int {
	tb.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	return len(d)
}

// emptyPool closes the pipes that wait for use.
func emptyPool() {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	for size, idle := range pipes.idle {
		for _, p := range idle {
			p.close()
		}
		pipes.live[size] -= len(idle)
		pipes.idle[size] = nil
	}
}

func TestPipePool(t *testing.T) {
	emptyPool()
	before := descriptors(t)
	var all []*pipe
	large := 0
	for {
		p := pipes.get()
		if p == nil {
			break
		}
		all = append(all, p)
		large += p.size
		if size, err := unix.FcntlInt(uintptr(p.r), unix.F_GETPIPE_SZ, 0); err != nil || size < smallPipe {
			t.Errorf("pipe of %d bytes, %v", size, err)
		}
	}
	if len(all) != maxPipes || large != maxLargePipes {
		t.Errorf("got %d pipes, %d of them large, want %d and %d", len(all), large, maxPipes, maxLargePipes)
	}
	// A relay that finds no pipe copies.
	for _, up := range []string{"tcp", "unix"} {
		g := start(t, "tcp", up, &Options{})
		exchange(t, g, 4<<20)
		if s := g.Stats(); s.Spliced != 0 {
			t.Errorf("spliced %d bytes without a pipe", s.Spliced)
		}
		g.client.Close()
		g.server.Close()
	}
	// A pipe with bytes in it is not lent again.
	if _, err := unix.Write(all[0].w, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	all[0].held = 6
	for _, p := range all {
		pipes.put(p)
	}
	for _, p := range pipes.idle[1] {
		if p == all[0] || p.held != 0 {
			t.Error("a pipe with bytes in it waits for use")
		}
	}
	if len(pipes.idle[0]) != maxIdlePipes || len(pipes.idle[1]) != maxLargePipes-1 || lent() != 0 {
		t.Errorf("%d small and %d large pipes wait, %d are lent", len(pipes.idle[0]), len(pipes.idle[1]), lent())
	}
	emptyPool()
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestPipeShortage: a process out of descriptors still relays.
func TestPipeShortage(t *testing.T) {
	emptyPool()
	g := newRig(t, "tcp", "tcp", "", &Options{})
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}()
	g.run(t, t.Context())
	exchange(t, g, 4<<20)
	if s := g.Stats(); s.Spliced != 0 || lent() != 0 {
		t.Errorf("spliced %d bytes, %d pipes are lent", s.Spliced, lent())
	}
}
