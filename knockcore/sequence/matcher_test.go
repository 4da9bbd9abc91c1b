// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// recordEvents writes events as "stage A 1", with the source where it is not x.
func recordEvents(into *[]string) func(Event) {
	names := map[EventKind]string{
		EventStage: "stage", EventSpoiled: "spoiled", EventTimeout: "timeout",
		EventExhausted: "exhausted", EventOneTimeFailed: "failed",
	}
	return func(e Event) {
		text := fmt.Sprintf("%s %s %d", names[e.Kind], e.Door.Name, e.Stage)
		if e.Source != sources["x"] {
			text += " " + e.Source.String()
		}
		*into = append(*into, text)
	}
}

func TestEvents(t *testing.T) {
	var events []string
	m := newTestMatcher(t, Config{Observe: recordEvents(&events)}, abc, other, "S=1,2,3;strict")
	k := newKnocks(t)
	check := func(script, opened string, want ...string) {
		t.Helper()
		events = nil
		if got := k.play(m, script); got != opened {
			t.Errorf("%s: opened %q", script, got)
		}
		if !slices.Equal(events, want) {
			t.Errorf("%s: events %q, want %q", script, events, want)
		}
	}
	check("7000 8000 9000", "A", "stage A 1", "stage A 2")
	check("7000 7000 7000' 8000 8000", "", "stage A 1", "stage A 2")
	check("23456", "", "spoiled A 2")
	check("y:7000 y:9000 y:8000", "", "stage A 1 192.0.2.2", "spoiled A 1 192.0.2.2")
	check("1 3", "", "stage S 1", "spoiled S 1")
	check("1 80", "", "stage S 1", "spoiled S 1")
	check("1 2 1", "", "stage S 1", "stage S 2", "spoiled S 2", "stage S 1")
	check("7000 12345", "", "stage A 1", "spoiled S 1", "stage B 1")
	check("+26s", "")
	events = nil
	if left := m.Sweep(k.now); left != 2 {
		t.Errorf("%d left", left)
	}
	if slices.Sort(events); !slices.Equal(events, []string{"timeout A 1", "timeout B 1"}) {
		t.Errorf("swept: %q", events)
	}
	if left := m.Sweep(k.now.Add(time.Minute)); left != 0 {
		t.Errorf("%d left after a minute", left)
	}
}

func TestMatch(t *testing.T) {
	m := testMatcher(t, abc)
	start := time.UnixMilli(1_750_000_000_123)
	var matches []Match
	for i, port := range []uint16{7000, 7000, 8000, 9000} {
		p := syn(netip.MustParseAddr("::ffff:192.0.2.1"), port, uint32(i+1), start.Add(time.Duration(i)*time.Second))
		matches = m.Add(&p, matches)
	}
	if len(matches) != 1 || matches[0].Door.Name != "A" || matches[0].Source != sources["x"] ||
		!matches[0].Started.Equal(start.Add(time.Second)) || !matches[0].Time.Equal(start.Add(3*time.Second)) {
		t.Errorf("%+v", matches)
	}
	p := syn(netip.Addr{}, 7000, 1, start)
	m.Add(&p, nil)
	p.Src, p.Protocol = sources["y"], knockcore.ProtocolAny
	m.Add(&p, nil)
	if m.Len() != 1 {
		t.Errorf("%d sources", m.Len())
	}
}

// TestClock: the clock is set while attempts run.
func TestClock(t *testing.T) {
	m := testMatcher(t, abc)
	k := newKnocks(t)
	for _, test := range []struct{ script, want string }{
		{"7000 8000 -500ms 9000", "A"}, // out of order by a little
		{"7000 8000 -2h 9000", ""},     // set back
		{"7000 8000 9000", "A"},
		{"7000 8000 +2h 9000", ""}, // set forward
		{"7000 8000 9000", "A"},
		{"-48h 7000 8000 9000", "A"},
		{"7000 8000 +1193h +2m47s 9000", ""}, // 2^32 ms later
	} {
		if got := k.play(m, test.script); got != test.want {
			t.Errorf("%s: opened %q, want %q", test.script, got, test.want)
		}
	}
}

// TestDoorsPerSource: a source that is at many doors keeps the most advanced.
func TestDoorsPerSource(t *testing.T) {
	doors := []string{abc}
	for i := range 30 {
		doors = append(doors, fmt.Sprintf("D%d=%d,%d,%d", i, 100+i, 200+i, 300+i))
	}
	for first := range 9 {
		var script strings.Builder
		for i := range 30 {
			if i == first {
				script.WriteString("7000 8000 ")
			}
			fmt.Fprintf(&script, "%d ", 100+i)
		}
		if got := newKnocks(t).play(testMatcher(t, doors...), script.String()+"229 329 9000"); got != "D29 A" {
			t.Errorf("%s: opened %q", script.String(), got)
		}
	}
	// Doors with the same first step count as one.
	doors = nil
	for i := range 100 {
		doors = append(doors, fmt.Sprintf("D%d=1,%d", i, 1000+i))
	}
	m := testMatcher(t, doors...)
	k := newKnocks(t)
	k.play(m, "1")
	for i := range 100 {
		if got := k.play(m, fmt.Sprint(1000+i)); got != fmt.Sprint("D", i) {
			t.Fatalf("%d opened %q", 1000+i, got)
		}
	}
}

// TestConcurrent: packets of many sources at once, with sweeps and refreshes.
func TestConcurrent(t *testing.T) {
	m := newTestMatcher(t, Config{Limits: Limits{Sources: 4096}, Observe: func(Event) {}}, abc, other, "S=7000,8000,9500;strict")
	var wg sync.WaitGroup
	var opened atomic.Int64
	now := time.UnixMilli(1_750_000_000_000)
	for g := range uint32(4) {
		wg.Go(func() {
			for n := range uint32(2000) {
				for i, port := range []uint16{7000, 443, 8000, 9000} {
					p := syn(ip4(g<<16|n), port, n*4+uint32(i), now)
					opened.Add(int64(len(m.Add(&p, nil))))
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			m.Sweep(now)
			m.Ports()
			m.Len()
			if err := m.Refresh(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if opened.Load() != 8000 {
		t.Errorf("%d opened of 8000", opened.Load())
	}
}
