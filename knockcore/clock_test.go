// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/filestore"
)

// wallClock is the time as of a machine whose clock is set: the wall clock jumps, the
// monotonic clock, which grants live by, does not.
type wallClock struct{ jumped time.Duration }

func (c *wallClock) now() time.Time {
	t := time.Now()
	// A time with a monotonic reading has the seconds since 1885 in bits 30 to 62 of its
	// first word. There is no other way to change one reading and leave the other.
	word := (*uint64)(unsafe.Pointer(&t))
	if *word>>63 != 1 {
		panic("a time without a monotonic reading")
	}
	*word += uint64(c.jumped/time.Second) << 30
	return t
}

// endsFirewall knows when windows end.
type endsFirewall struct {
	knockcore.Firewall
	mu   sync.Mutex
	ends map[string]time.Time
}

func (f *endsFirewall) Open(_ context.Context, windows ...knockcore.Window) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range windows {
		f.ends[w.Prefix.Addr().String()] = w.Expires
	}
	return nil
}

func (f *endsFirewall) Close(_ context.Context, windows ...knockcore.Window) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range windows {
		delete(f.ends, w.Prefix.Addr().String())
	}
	return nil
}

// clockTest is a gatekeeper over a store on disk, on a machine whose clock jumps.
type clockTest struct {
	*testing.T
	clock    wallClock
	dir      string
	store    *filestore.Store
	firewall *endsFirewall
	bans     *knockcore.Bans
	gate     *knockcore.Gatekeeper
	accepted []knockcore.Knock
}

// start begins with what the store kept.
func (c *clockTest) start() {
	c.Helper()
	var err error
	if c.store, err = filestore.Open(filestore.Options{Dir: c.dir, Now: c.clock.now}); err != nil {
		c.Fatal(err)
	}
	c.firewall = &endsFirewall{ends: make(map[string]time.Time)}
	c.bans = knockcore.NewBans(knockcore.BanConfig{Store: c.store})
	if err := c.bans.Restore(c.Context()); err != nil {
		c.Fatal(err)
	}
	ring, err := knockcore.NewKeyring([]*knockcore.Client{{ID: "alice", AllServices: true}})
	if err != nil {
		c.Fatal(err)
	}
	c.gate, err = knockcore.NewGatekeeper(knockcore.Config{
		Keyring: ring, Bans: c.bans, Now: c.clock.now,
		Services:  []*knockcore.Service{{Name: "ssh", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 22, High: 22}}, Firewall: "fw", OpenFor: 10 * time.Minute}},
		Firewalls: map[string]knockcore.Firewall{"fw": c.firewall},
	}, knockcore.NewState(c.store, 0))
	if err != nil {
		c.Fatal(err)
	}
	if _, err := c.gate.Restore(c.Context()); err != nil {
		c.Fatal(err)
	}
	c.gate.Activate(c.Context())
}

// knock knocks from the address with a fresh frame of this time.
func (c *clockTest) knock(from string, at time.Time) error {
	k := knockcore.Knock{
		Client: c.gate.Keyring().Client("alice"), Method: knockcore.MethodUDP, Source: netip.MustParseAddr(from), Time: time.UnixMilli(at.UnixMilli()),
		Replay: knockcore.NewReplayKey(knockcore.ReplayUDP, "alice", fmt.Append(nil, from, at.UnixNano())),
	}
	_, err := c.gate.Admit(c.Context(), k)
	if err == nil {
		c.accepted = append(c.accepted, k)
	}
	return err
}

// check holds all that was let in and banned to its time, and throws every frame that
// was accepted again.
func (c *clockTest) check(when string, inside ...string) {
	c.Helper()
	c.gate.Sweep(c.Context())
	query := knockcore.NewQuery([]string{"ssh"}, nil)
	for _, address := range inside {
		if !query.Match(c.gate.State().Table, netip.MustParseAddr(address)) {
			c.Errorf("%s: %s is out", when, address)
		}
		end := c.firewall.ends[address]
		if left := end.Sub(c.clock.now()); left > 10*time.Minute || left < 9*time.Minute {
			c.Errorf("%s: the window of %s is open for %v", when, address, left)
		}
	}
	grants := c.gate.State().Grants(nil)
	for _, g := range grants {
		if left := g.Remaining(c.gate.Now()); left > 10*time.Minute || left < 9*time.Minute {
			c.Errorf("%s: the grant of %v lasts %v", when, g.Prefix, left)
		}
	}
	if len(grants) != len(inside) || len(c.firewall.ends) != len(inside) {
		c.Errorf("%s: %d grants and %d windows, not %d", when, len(grants), len(c.firewall.ends), len(inside))
	}
	banned := c.bans.List(c.gate.Now())
	if len(banned) != 1 || banned[0].Until.Sub(c.clock.now()) > 10*time.Minute || banned[0].Until.Sub(c.clock.now()) < 9*time.Minute {
		c.Errorf("%s: bans %v", when, banned)
	}
	for _, k := range c.accepted {
		k.Client = c.gate.Keyring().Client("alice")
		if _, err := c.gate.Admit(c.Context(), k); err == nil {
			c.Fatalf("%s: a frame of %v was accepted again", when, k.Time)
		}
	}
}

func (c *clockTest) refused(when string, err error, want knockcore.Reason, ahead time.Duration) {
	c.Helper()
	var refusal *knockcore.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != want || (refusal.Skew-ahead).Abs() > time.Minute {
		c.Errorf("%s: %v, want %v by %v", when, err, want, ahead)
	}
}

// TestClockJumps sets the clock of a running server an hour ahead or back, and back
// again, with restarts in between: what is open stays open for as long as it was made
// for, bans too, and no frame is accepted twice. Clients whose clocks are right are
// refused as long as the server's is wrong, and are told nothing else than that.
func TestClockJumps(t *testing.T) {
	for name, jump := range map[string]struct {
		by     time.Duration
		reason knockcore.Reason // for those whose clock is right
	}{
		"ahead": {time.Hour, knockcore.ReasonStale},
		"back":  {-time.Hour, knockcore.ReasonFuture},
	} {
		t.Run(name, func(t *testing.T) {
			c := &clockTest{T: t, dir: filepath.Join(t.TempDir(), "state")}
			c.clock.jumped = -2 * time.Hour // frames from before a store was made are refused
			c.start()
			if err := c.store.Close(); err != nil {
				t.Fatal(err)
			}
			c.clock.jumped = 0
			c.start()
			defer func() { _ = c.store.Close() }()
			if err := c.knock("192.0.2.1", time.Now()); err != nil {
				t.Fatal(err)
			}
			c.bans.Ban(netip.MustParseAddr("198.51.100.1"), c.gate.Now(), 10*time.Minute)
			c.check("before", "192.0.2.1")

			c.clock.jumped = jump.by
			c.check("after the jump", "192.0.2.1")
			c.refused("a client whose clock is right", c.knock("192.0.2.2", time.Now()), jump.reason, -jump.by)
			if err := c.knock("192.0.2.3", c.clock.now()); err != nil {
				t.Errorf("a client whose clock is as wrong as ours: %v", err)
			}
			c.check("knocks by the wrong clock", "192.0.2.1", "192.0.2.3")

			if err := c.store.Close(); err != nil {
				t.Fatal(err)
			}
			c.start()
			c.check("a restart with the wrong clock", "192.0.2.1", "192.0.2.3")

			c.clock.jumped = 0
			c.check("the clock is right again", "192.0.2.1", "192.0.2.3")
			if err := c.knock("192.0.2.4", time.Now()); err != nil {
				t.Errorf("a client whose clock is right: %v", err)
			}
			c.refused("a client whose clock is wrong", c.knock("192.0.2.5", time.Now().Add(jump.by)), map[bool]knockcore.Reason{
				true: knockcore.ReasonFuture, false: knockcore.ReasonStale,
			}[jump.by > 0], jump.by)
			if err := c.store.Close(); err != nil {
				t.Fatal(err)
			}
			c.start()
			c.check("a restart with the right clock", "192.0.2.1", "192.0.2.3", "192.0.2.4")
		})
	}
}
