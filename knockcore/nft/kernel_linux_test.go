// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// TestRetry: a kernel short of buffers is asked again, a bounded number of times.
func TestRetry(t *testing.T) {
	for _, c := range []struct {
		err   error
		fails int
		calls int
		ok    bool
	}{
		{fmt.Errorf("send: %w", unix.ENOBUFS), 2, 3, true},
		{unix.ENOBUFS, 100, retries, false},
		{unix.EINTR, 1, 2, true},
		{unix.EPERM, 1, 1, false},
	} {
		k := kernel{link: &link{fd: -1}, conn: &nftables.Conn{}}
		calls := 0
		err := k.call(func(*nftables.Conn) error {
			if calls++; calls <= c.fails {
				return c.err
			}
			return nil
		})
		if calls != c.calls || (err == nil) != c.ok || err != nil && !errors.Is(err, c.err) {
			t.Errorf("%v for %d times: %d calls, %v", c.err, c.fails, calls, err)
		}
	}
	if err := explain(unix.EPERM); !errors.Is(err, ErrPermission) {
		t.Error(err)
	}
	if err := explain(unix.EOPNOTSUPP); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

// TestReadBack: windows that the kernel took and does not have are noticed.
func TestReadBack(t *testing.T) {
	w := newTown(t)
	e := start(t, w.host, Config{}, service(t, "ssh", "tcp/22"))
	open(t, e, window(knocker4, "ssh", time.Hour))
	open(t, e, addresses(1000, 5*readAtOnce/2)...)
	err := e.run(t.Context(), func(o *owner) error {
		there, _ := keyOf(window(knocker4, "ssh", 0))
		lost, _ := keyOf(window(stranger4, "ssh", 0))
		closed, _ := keyOf(window("10.0.0.1", "ssh", 0))
		over, _ := keyOf(window("10.0.0.2", "ssh", 0))
		missing, err := o.keeper.(*gate).readBack(map[key]time.Time{
			there: time.Now().Add(time.Hour), lost: time.Now().Add(time.Hour), closed: {}, over: time.Now(),
		})
		if _, ok := missing[lost]; len(missing) != 1 || !ok {
			t.Errorf("missing: %v", missing)
		}
		if err != nil {
			return err
		}

		many := map[key]time.Time{}
		for _, w := range addresses(1000-3, 5*readAtOnce/2+7) { // 3 before those that are open, 4 behind
			k, _ := keyOf(w)
			many[k] = w.Expires
		}
		if missing, err = o.keeper.(*gate).readBack(many); len(missing) != 7 {
			t.Errorf("%d are missing of many", len(missing))
		}
		for _, w := range addresses(1000, 5*readAtOnce/2) {
			if k, _ := keyOf(w); !missing[k].IsZero() {
				t.Errorf("%v is there", w.Prefix)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestMissing: windows that a repair could not put back are put back later,
// unless they were closed or moved meanwhile.
func TestMissing(t *testing.T) {
	w := newTown(t)
	e := start(t, w.host, Config{CheckInterval: time.Hour}, service(t, "ssh", "tcp/22"))
	all := addresses(0, 3*maxCommit)
	open(t, e, all...)
	err := e.run(t.Context(), func(o *owner) error {
		g := o.keeper.(*gate)
		return g.k.commit(0, func(c *nftables.Conn) error {
			for k, expires := range g.live { // as after a repair that was cut short
				g.missing[k] = expires
			}
			c.FlushSet(all4(g))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(t.Context(), all[0]); err != nil {
		t.Fatal(err)
	}
	all[1].Expires = time.Now().Add(2 * time.Hour)
	open(t, e, all[1])
	if err := e.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := list(t, e)
	if len(got) != len(all)-1 || e.Heals() != 1 {
		t.Errorf("%d windows after %d repairs", len(got), e.Heals())
	}
	closed, _ := keyOf(all[0])
	moved, _ := keyOf(all[1])
	if _, ok := got[closed]; ok {
		t.Error("what was closed is open again")
	}
	if left := time.Until(got[moved]); left < 90*time.Minute {
		t.Errorf("what was moved ends in %v", left)
	}
}

func all4(g *gate) *nftables.Set { return standard("ssh")[0].set(g.table()) }
