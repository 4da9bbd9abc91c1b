// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"os"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Options say where a store lives and what it goes by.
type Options struct {
	// Dir is the store's directory. It is made, with mode 0700, if it is not
	// there. Nothing else may live in it.
	Dir string
	// Capacity is how many nonces are remembered; 0 means
	// knockcore.DefaultReplayCapacity. A nonce takes about 150 bytes of memory and
	// 80 bytes of disk.
	Capacity int
	// Window is the greatest time window that any knock is checked with; 0 means
	// knockcore.DefaultWindow. It is only needed when the store has lost its
	// horizon: see "What a start refuses" in the package comment.
	Window time.Duration
	// DistrustEmpty treats an empty or missing directory as one whose contents
	// were lost: the first start refuses frames of the next Window too. It is for
	// directories that vanish with a container.
	DistrustEmpty bool
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Boot tells the identity of the time since the machine was started, "" if it
	// is not known, and how long ago that was, sleep included. Nil means the
	// operating system's answer; tests play a reboot with it.
	Boot func() (id string, uptime time.Duration)
	// Log is told what an operator should know: level is "info", "warn" or
	// "error", err may be nil. It must not call the store. Nil means nobody.
	Log func(level, msg string, err error)

	// For tests.
	retry   time.Duration           // how often what failed is tried again, 0: retryEvery
	segment int64                   // bytes in a journal segment, 0: segmentSize
	fault   func(op string) error   // asked before each write; an error is the outcome
	noSync  bool                    // fsync does nothing
	synced  func(f *os.File) func() // called before an fsync, nil for the directory's; the result after it
}

const (
	// segmentSize is how many bytes a journal segment has, room not used yet
	// included: some 25,000 nonces.
	segmentSize = 1 << 20
	// minSegment fits the greatest record and the seal.
	minSegment = 8 << 10
	// syncEvery is how often the journal is fsynced while something is written.
	syncEvery = 100 * time.Millisecond
	// lead is how far the horizon is ahead of the newest timestamp when it is
	// raised, in ms. It is raised again when half of it is used up, so a spend
	// waits only if the disk takes longer than that, or after a pause.
	lead = 2000
	// patience is how long a spend waits for the disk to confirm the horizon.
	patience = time.Second
	// retryEvery is how often a store that could not write tries again.
	retryEvery = time.Second
)

func (o *Options) fill() {
	if o.Window <= 0 {
		o.Window = knockcore.DefaultWindow
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Boot == nil {
		o.Boot = systemBoot
	}
	if o.Log == nil {
		o.Log = func(string, string, error) {}
	}
	if o.fault == nil {
		o.fault = func(string) error { return nil }
	}
	if o.segment == 0 {
		o.segment = segmentSize
	}
	if o.retry == 0 {
		o.retry = retryEvery
	}
	o.segment = max(o.segment, minSegment)
}
