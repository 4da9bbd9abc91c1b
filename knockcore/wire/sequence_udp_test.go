// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// udpPart is part index of total of the sequence with this ID.
func udpPart(id, index, total byte) *Datagram {
	return &Datagram{
		Method: knockcore.MethodUDPSeq, Port: 22, Sequence: true,
		SequenceID: [16]byte{id}, Index: index, Total: total,
	}
}

func newUDPSequences(t testing.TB, cfg UDPSequenceConfig) *UDPSequences {
	t.Helper()
	u, err := NewUDPSequences(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func udpSource(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}) }

func TestUDPSequenceConfig(t *testing.T) {
	for name, cfg := range map[string]UDPSequenceConfig{
		"length 1": {Length: 1}, "length 9": {Length: 9}, "length -1": {Length: -1}, "window": {Window: -1},
		"per source": {MaxPerSource: -1}, "open": {MaxOpen: -1}, "memory": {Memory: -1},
		"memory of the window": {Window: time.Second, Memory: time.Second},
	} {
		if _, err := NewUDPSequences(cfg); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if u := newUDPSequences(t, UDPSequenceConfig{Window: time.Hour}); u.memory <= time.Hour {
		t.Errorf("memory %v", u.memory)
	}
}

func TestUDPSequences(t *testing.T) {
	src, start := udpSource(1), time.Unix(1000, 0)
	with := func(d *Datagram, f func(*Datagram)) *Datagram { f(d); return d }
	type step struct {
		at     time.Duration
		src    netip.Addr
		client string
		d      *Datagram
		done   bool
		reason knockcore.Reason
	}
	for name, steps := range map[string][]step{
		"mapped address and zone": {
			{0, src, "a", udpPart(1, 2, 3), false, 0},
			{1, netip.AddrFrom16(src.As16()), "a", udpPart(1, 0, 3), false, 0},
			{2, netip.AddrFrom16(src.As16()).WithZone("eth0"), "a", udpPart(1, 1, 3), true, 0},
		},
		"window is measured from the first part": {
			{0, src, "a", udpPart(1, 0, 3), false, 0},
			{9 * time.Second, src, "a", udpPart(1, 1, 3), false, 0},
			{DefaultSequenceWindow + 1, src, "a", udpPart(1, 2, 3), false, knockcore.ReasonReplay},
			{DefaultSequenceWindow + DefaultSequenceMemory, src, "a", udpPart(1, 2, 3), false, knockcore.ReasonReplay},
			{DefaultSequenceWindow + DefaultSequenceMemory + 1, src, "a", udpPart(1, 2, 3), false, 0},
		},
		"a finished sequence is remembered": {
			{0, src, "a", udpPart(1, 0, 3), false, 0},
			{1, src, "a", udpPart(1, 1, 3), false, 0},
			{2, src, "a", udpPart(1, 2, 3), true, 0},
			{DefaultSequenceMemory + 1, src, "a", udpPart(1, 2, 3), false, knockcore.ReasonReplay},
			{DefaultSequenceMemory + 2, src, "a", udpPart(1, 2, 3), false, 0},
		},
		"clock set back": {
			{time.Hour, src, "a", udpPart(1, 0, 3), false, 0},
			{time.Hour - DefaultSequenceWindow, src, "a", udpPart(1, 1, 3), false, 0},
			{0, src, "a", udpPart(1, 2, 3), false, knockcore.ReasonReplay},
		},
		"sessions do not mix": {
			{0, src, "a", udpPart(1, 0, 3), false, 0},
			{1, src, "a", with(udpPart(1, 1, 3), func(d *Datagram) { d.Session = make([]byte, 16) }), false, knockcore.ReasonAuthFailed},
			{2, src, "a", udpPart(1, 1, 3), false, 0},
			{3, src, "a", udpPart(1, 2, 3), true, 0},
		},
		"nothing else mixes either": {
			{0, src, "a", udpPart(1, 0, 3), false, 0},
			{1, src, "a", udpPart(1, 1, 3), false, 0},
			{2, src, "b", udpPart(1, 2, 3), false, 0},
			{3, udpSource(2), "a", udpPart(1, 2, 3), false, 0},
			{4, src, "a", udpPart(2, 2, 3), false, 0},
			{5, src, "a", with(udpPart(1, 2, 3), func(d *Datagram) { d.Port++ }), false, 0},
			{6, src, "a", with(udpPart(1, 2, 3), func(d *Datagram) { d.Method = knockcore.MethodUDPPassiveSeq }), false, 0},
			{7, src, "a", udpPart(1, 2, 3), true, 0},
		},
		"not a part": {
			{0, src, "a", &Datagram{Method: knockcore.MethodUDPSeq, Port: 22}, false, knockcore.ReasonMalformed},
			{0, src, "a", with(udpPart(1, 0, 3), func(d *Datagram) { d.Method = knockcore.MethodUDP }), false, knockcore.ReasonMalformed},
			{0, src, "a", udpPart(1, 0, 2), false, knockcore.ReasonMalformed},
			{0, src, "a", udpPart(1, 3, 3), false, knockcore.ReasonMalformed},
			{0, src, "a", udpPart(1, 255, 3), false, knockcore.ReasonMalformed},
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUDPSequences(t, UDPSequenceConfig{})
			for i, s := range steps {
				done, err := u.Add(start.Add(s.at), s.src, s.client, s.d)
				if done != s.done || knockcore.ReasonOf(err) != s.reason {
					t.Fatalf("step %d: %v, %v", i, done, err)
				}
			}
		})
	}
}

func TestUDPSequenceLengths(t *testing.T) {
	for total := byte(MinUDPSequence); total <= MaxUDPSequence; total++ {
		u := newUDPSequences(t, UDPSequenceConfig{Length: int(total)})
		for i := range total {
			if done, err := u.Add(time.Unix(0, 0), udpSource(1), "a", udpPart(1, i, total)); err != nil || done != (i == total-1) {
				t.Errorf("part %d of %d: %v, %v", i, total, done, err)
			}
		}
	}
}

func TestUDPSequenceLimits(t *testing.T) {
	now := time.Unix(1000, 0)
	add := func(t *testing.T, u *UDPSequences, src int, client string, id byte, want knockcore.Reason) {
		t.Helper()
		if _, err := u.Add(now, udpSource(src), client, udpPart(id, 0, 3)); knockcore.ReasonOf(err) != want {
			t.Errorf("client %s from %d: %v, want %v", client, src, err, want)
		}
	}
	open := func(u *UDPSequences, src int, client string, id byte) bool {
		return u.open.entries[udpSequenceKey{udpSource(src), client, [16]byte{id}, 22, knockcore.MethodUDPSeq}] != nil
	}
	t.Run("per source", func(t *testing.T) {
		u := newUDPSequences(t, UDPSequenceConfig{MaxPerSource: 3})
		add(t, u, 1, "hog", 1, 0)
		add(t, u, 1, "c", 1, 0)
		add(t, u, 1, "hog", 2, 0)
		add(t, u, 1, "hog", 3, knockcore.ReasonLimited)
		add(t, u, 1, "c", 2, knockcore.ReasonLimited) // has one already
		add(t, u, 1, "newcomer", 1, 0)                // in place of the hog's oldest
		if open(u, 1, "hog", 1) || !open(u, 1, "hog", 2) || !open(u, 1, "c", 1) {
			t.Error("the wrong sequence made room")
		}
		add(t, u, 1, "fourth", 1, knockcore.ReasonLimited) // nobody has several
		add(t, u, 2, "hog", 1, 0)                          // another address has its own room
	})
	t.Run("per client", func(t *testing.T) {
		u := newUDPSequences(t, UDPSequenceConfig{MaxPerSource: 1, MaxOpen: 16})
		add(t, u, 1, "hog", 1, 0)
		add(t, u, 2, "hog", 1, 0)
		add(t, u, 3, "hog", 1, knockcore.ReasonLimited)
		add(t, u, 3, "other", 1, 0)
	})
	t.Run("total", func(t *testing.T) {
		u := newUDPSequences(t, UDPSequenceConfig{MaxPerSource: 1, MaxOpen: 16})
		for i := range 17 {
			add(t, u, i, fmt.Sprint("c", i), 1, 0)
		}
		if u.Len() != 16 || open(u, 0, "c0", 1) || !open(u, 1, "c1", 1) {
			t.Errorf("%d open; the oldest must make room", u.Len())
		}
		if u.Sweep(now.Add(time.Minute)); u.Len() != 0 || len(u.open.sources) != 0 || len(u.open.clients) != 0 {
			t.Error("counters stay behind")
		}
		if len(u.done) != 16 || u.past.Len() != 16 {
			t.Errorf("%d remembered", len(u.done))
		}
	})
	t.Run("memory", func(t *testing.T) {
		u := newUDPSequences(t, UDPSequenceConfig{Length: 2, MaxOpen: 4})
		for id := range byte(9) {
			for i := range byte(2) {
				if done, err := u.Add(now, udpSource(1), "a", udpPart(id, i, 2)); err != nil || done != (i == 1) {
					t.Fatalf("sequence %d: %v, %v", id, done, err)
				}
			}
		}
		if len(u.done) != 4 || u.past.Len() != 4 {
			t.Errorf("%d remembered", len(u.done))
		}
	})
}
