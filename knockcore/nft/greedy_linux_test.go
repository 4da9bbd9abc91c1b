// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"context"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// slowKeeper is a kernel that takes as long for each commit as the test wants.
type slowKeeper struct {
	keeper
	commits chan map[key]time.Time
	next    chan struct{}
}

func (s *slowKeeper) apply(changes map[key]time.Time) error {
	s.commits <- maps.Clone(changes)
	<-s.next
	return nil
}

func (s *slowKeeper) concerns(byte, string) bool { return false }
func (s *slowKeeper) port() uint32               { return 0 }
func (s *slowKeeper) forget()                    {}
func (s *slowKeeper) close()                     {}
func (s *slowKeeper) verify() (string, error)    { return "", nil }

// TestRenewalsShareCommits: whatever somebody asks for while the kernel is at work goes
// out in one commit, each window once, together with what others ask for: they don't
// wait behind it.
func TestRenewalsShareCommits(t *testing.T) {
	k := &slowKeeper{commits: make(chan map[key]time.Time), next: make(chan struct{})}
	o := newOwner(k, Config{}, new(atomic.Uint64))
	o.names = map[string]bool{"ssh": true}
	go o.loop()
	defer func() {
		if err := o.end(func() error { return nil }); err != nil {
			t.Error(err)
		}
	}()
	var asked sync.WaitGroup
	ask := func(address string, length time.Duration) {
		asked.Go(func() {
			r := &request{ctx: t.Context(), windows: []knockcore.Window{window(address, "ssh", length)}}
			if err := o.do(r); err != nil {
				t.Error(err)
			}
		})
	}
	ask("192.0.2.1", time.Hour)
	<-k.commits // and the kernel takes its time
	const churn = 2000
	for i := range churn {
		ask(fmt.Sprintf("192.0.2.%d", 1+i%8), time.Hour)
	}
	ask("198.51.100.7", time.Hour)
	for len(o.requests) <= churn {
		time.Sleep(time.Millisecond)
	}
	// Requests are joined up to maxCommit windows, so that these are two commits.
	seen := map[key]time.Time{}
	for range (churn + maxCommit) / maxCommit {
		k.next <- struct{}{}
		batch := <-k.commits
		if len(batch) > 9 {
			t.Errorf("%d windows for 9 addresses", len(batch))
		}
		maps.Copy(seen, batch)
	}
	k.next <- struct{}{}
	asked.Wait()
	if len(seen) != 9 {
		t.Errorf("%d of 9 windows", len(seen))
	}
}

// TestGreedyClient is that with the kernel: callers that renew windows as fast as they can
// cost no more commits than calls, and others get theirs.
func TestGreedyClient(t *testing.T) {
	w := newTown(t)
	w.host.Echo("tcp", ":22")
	e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
	count := kernel{netns: w.host.FD()}
	defer count.close()
	generation := func() uint32 {
		t.Helper()
		id, err := count.generation()
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := generation()
	const greedy, times = 64, 200
	var churn sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range greedy {
		churn.Go(func() {
			for n := range times {
				if err := e.Open(ctx, window(net.IPv4(10, 0, 0, byte(i)).String(), "ssh", time.Duration(n+60)*time.Second)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	open(t, e, window(knocker4, "ssh", time.Hour))
	w.want(t, w.knocker, "tcp", host4, "22", "open", "somebody else's window, meanwhile")
	churn.Wait()
	commits, calls := generation()-before, uint32(greedy*times+1)
	t.Logf("%d calls, %d commits", calls, commits)
	if commits > calls { // how many calls share one depends on the machine: see TestRenewalsShareCommits
		t.Errorf("%d commits for %d calls", commits, calls)
	}
	if n := len(list(t, e)); n != greedy+1 {
		t.Errorf("%d windows, want %d", n, greedy+1)
	}
}
