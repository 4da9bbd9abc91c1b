// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"crypto/sha256"
	"time"
)

// bootID identifies the time since the machine was started; zero if unknown.
type bootID [16]byte

// same reports whether both are known and equal.
func (b bootID) same(other bootID) bool { return b == other && b != bootID{} }

// moment is a point in time by two clocks: the wall clock, which can be set, and
// the time since boot, which can't but ends with the boot.
type moment struct {
	wall int64 // Unix ns
	boot int64 // ns since boot
}

// farAway bounds how far ahead moments are, so that nothing overflows.
const farAway = 100 * 365 * 24 * time.Hour

// clock makes and reads moments.
type clock struct {
	now  func() time.Time
	boot func() (string, time.Duration)
	id   bootID
}

func newClock(now func() time.Time, boot func() (string, time.Duration)) clock {
	c := clock{now: now, boot: boot}
	if id, _ := boot(); id != "" {
		sum := sha256.Sum256([]byte(id))
		c.id = bootID(sum[:16])
	}
	return c
}

// read is the moment now.
func (c *clock) read() moment {
	_, uptime := c.boot()
	return moment{wall: c.now().UnixNano(), boot: int64(uptime)}
}

// in is the moment d after m.
func (m moment) in(d time.Duration) moment {
	d = min(max(d, -farAway), farAway)
	return moment{wall: m.wall + int64(d), boot: m.boot + int64(d)}
}

// left is how long it is from now until a moment that was kept under boot,
// negative if it is over. In the same boot a clock that was set changes nothing;
// otherwise the wall clock has to be believed.
func (c *clock) left(m moment, boot bootID, now moment) time.Duration {
	if boot.same(c.id) {
		return time.Duration(m.boot - now.boot)
	}
	return time.Duration(m.wall - now.wall)
}
