// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

const (
	churnEnv  = "KNOCK_NFT_CHURN"
	roundsEnv = "KNOCK_NFT_KILLS"
	churnLife = 2 * time.Second
)

// TestKillAtRandom kills a process that opens, moves and closes windows all the
// time, again and again (KNOCK_NFT_KILLS times): the next one adopts what it
// left, nothing is there twice, no window outlives its time, and a stranger never
// gets in.
func TestKillAtRandom(t *testing.T) {
	rounds := 25
	if n, err := strconv.Atoi(os.Getenv(roundsEnv)); err == nil {
		rounds = n
	}
	w := newTown(t)
	w.host.Echo("tcp", ":22")
	services := []*knockcore.Service{service(t, "ssh", "tcp/22")}
	first := start(t, w.host, Config{}, services...)
	want := listing(w.host, Config{})
	if err := first.Stop(t.Context(), knockcore.ExitKeep); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan int)
	go func() {
		n := 0
		w.stranger.Watch(ctx, "tcp", host4+":22", time.Millisecond, func(s netlab.State) bool {
			if n++; s == netlab.Open {
				t.Error("a stranger got in")
			}
			return s != netlab.Open
		})
		watched <- n
	}()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	adopted := 0
	for i := range rounds {
		cmd := w.host.Command(ctx, self, "-test.run=^TestChurn$")
		cmd.Env = append(os.Environ(), churnEnv+"=1")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(150 * time.Millisecond)) // a random moment is the point
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if i%5 != 4 {
			continue // the next churning process adopts
		}
		e, err := New(Config{NetNS: w.host.FD()})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Setup(t.Context(), services); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		windows := list(t, e)
		adopted += len(windows)
		for k, expires := range windows {
			if left := time.Until(expires); left > churnLife {
				t.Errorf("round %d: %v still has %v", i, k, left)
			}
		}
		if err := e.Stop(t.Context(), knockcore.ExitKeep); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	t.Logf("%d kills, %d windows adopted, %d probes by a stranger", rounds, adopted, <-watched)
	last := start(t, w.host, Config{}, services...)
	w.Eventually(30*time.Second, "all windows run out", func() bool { return len(list(t, last)) == 0 })
	if got := listing(w.host, Config{}); got != want {
		t.Errorf("in the end:\n%s\nat first:\n%s", got, want)
	}
}

func TestChurn(t *testing.T) {
	if os.Getenv(churnEnv) == "" {
		t.Skip("part of TestKillAtRandom")
	}
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Setup(t.Context(), []*knockcore.Service{service(t, "ssh", "tcp/22")}); err != nil {
		t.Fatal(err)
	}
	for {
		wd := window(fmt.Sprintf("10.0.0.%d", rand.N(200)), "ssh", rand.N(churnLife))
		if rand.N(4) == 0 {
			err = e.Close(t.Context(), wd)
		} else if wd.Expires.After(time.Now().Add(time.Millisecond)) {
			err = e.Open(t.Context(), wd)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
