// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestSYNSequences(t *testing.T) {
	cred := testCredential("a", []byte("0123456789abcdef"))
	part := func(index uint8) SYNMatch {
		return SYNMatch{Credential: cred, Method: knockcore.MethodTCPSYNSeq, Port: 22, Slot: 5, Index: index, Total: 3}
	}
	with := func(m SYNMatch, f func(*SYNMatch)) SYNMatch { f(&m); return m }
	src, start := netip.MustParseAddr("192.0.2.1"), time.Unix(1000, 0)
	type step struct {
		at     time.Duration
		src    netip.Addr
		m      SYNMatch
		done   bool
		reason knockcore.Reason
	}
	for name, steps := range map[string][]step{
		"mapped address": {
			{0, src, part(0), false, 0},
			{1, netip.AddrFrom16(src.As16()), part(1), false, 0},
			{2, src, part(2), true, 0},
		},
		"exactly the window": {
			{0, src, part(0), false, 0},
			{1, src, part(1), false, 0},
			{DefaultSequenceWindow, src, part(2), true, 0},
		},
		"repeated and early parts change nothing": {
			{0, src, part(0), false, 0},
			{1, src, part(0), false, knockcore.ReasonReplay},
			{2, src, part(2), false, knockcore.ReasonMalformed},
			{3, src, part(1), false, 0},
			{4, src, part(1), false, knockcore.ReasonReplay},
			{5, src, part(2), true, 0},
			{6, src, part(2), false, knockcore.ReasonMalformed},
		},
		"parts of different knocks do not mix": {
			{0, src, part(0), false, 0},
			{1, src, with(part(1), func(m *SYNMatch) { m.Slot++ }), false, knockcore.ReasonMalformed},
			{2, src, with(part(1), func(m *SYNMatch) { m.Port++ }), false, knockcore.ReasonMalformed},
			{3, src, with(part(1), func(m *SYNMatch) { m.Legacy = true }), false, knockcore.ReasonMalformed},
			{4, src, with(part(1), func(m *SYNMatch) { m.Credential = testCredential("b", cred.Secret.Bytes()) }), false, knockcore.ReasonMalformed},
			{5, netip.MustParseAddr("192.0.2.2"), part(1), false, knockcore.ReasonMalformed},
		},
		"not a part": {
			{0, src, with(part(0), func(m *SYNMatch) { m.Method = knockcore.MethodTCPSYN; m.Total = 1 }), false, knockcore.ReasonMalformed},
			{0, src, with(part(0), func(m *SYNMatch) { m.Total = 4 }), false, knockcore.ReasonMalformed},
			{0, src, part(3), false, knockcore.ReasonMalformed},
		},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := NewSYNSequences(SYNSequenceConfig{})
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range steps {
				done, err := q.Add(start.Add(s.at), s.src, s.m)
				if done != s.done || knockcore.ReasonOf(err) != s.reason {
					t.Fatalf("step %d: %v, %v", i, done, err)
				}
			}
			if q.Sweep(start.Add(time.Hour)); q.Len() != 0 {
				t.Error("Sweep left something")
			}
		})
	}
}

func TestSYNSequenceLimits(t *testing.T) {
	q, err := NewSYNSequences(SYNSequenceConfig{MaxPerSource: 2, MaxOpen: 16})
	if err != nil {
		t.Fatal(err)
	}
	cred, now := testCredential("a", []byte("0123456789abcdef")), time.Unix(1000, 0)
	for slot, want := range []knockcore.Reason{0, 0, knockcore.ReasonLimited} {
		m := SYNMatch{Credential: cred, Method: knockcore.MethodTCPSYNSeq, Port: 22, Slot: int64(slot), Total: 3}
		if _, err := q.Add(now, netip.MustParseAddr("2001:db8::1"), m); knockcore.ReasonOf(err) != want {
			t.Errorf("sequence %d: %v, want %v", slot, err, want)
		}
		checkOpenTable(t, q.open, 2, 16)
	}
}
