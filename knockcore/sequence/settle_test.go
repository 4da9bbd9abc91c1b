// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestOneTimeDoor(t *testing.T) {
	file := oneTimeFile(t, " 7000,8000,9000\n 1000,2000:udp,3000,4000,5000\n 7000,8000,9000\n")
	var events []string
	door := &Door{Name: "A", OneTime: file, Flags: Flags{Mask: SYN, Want: SYN}}
	m, err := NewMatcher([]*Door{door, testDoor(t, "B=7000,8000,9000")}, Config{
		Limits: Limits{Sources: 1024}, Observe: recordEvents(&events),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []knockcore.PortRange{
		{Protocol: knockcore.TCP, Low: 1000, High: 1000},
		{Protocol: knockcore.TCP, Low: 3000, High: 3000},
		{Protocol: knockcore.TCP, Low: 4000, High: 4000},
		{Protocol: knockcore.TCP, Low: 5000, High: 5000},
		{Protocol: knockcore.TCP, Low: 7000, High: 7000},
		{Protocol: knockcore.TCP, Low: 8000, High: 8000},
		{Protocol: knockcore.TCP, Low: 9000, High: 9000},
		{Protocol: knockcore.UDP, Low: 2000, High: 2000},
	}
	if got := m.Ports(); !slices.Equal(got, want) {
		t.Errorf("ports %v", got)
	}
	k := newKnocks(t)
	for _, test := range []struct{ script, want string }{
		{"1000 u2000 3000 4000 5000", ""}, // not yet
		{"y:7000 y:8000 7000 8000 9000", "A B"},
		{"y:9000", "y:B"},       // half way when the sequence was used
		{"7000 8000 9000", "B"}, // replayed
		{"x6:1000 x6:u2000 x6:3000 x6:4000 x6:5000", "x6:A"},
		{"1000 u2000 3000 4000 5000", ""},
		{"y:7000 y:8000 y:9000", "y:A y:B"},
		{"7000 8000 9000", "B"},
	} {
		if got := k.play(m, test.script); got != test.want {
			t.Errorf("%s: opened %q, want %q", test.script, got, test.want)
		}
	}
	if got := fileContent(t, file); got != "#7000,8000,9000\n#1000,2000:udp,3000,4000,5000\n#7000,8000,9000\n" {
		t.Errorf("the file: %q", got)
	}
	if n := len(slices.DeleteFunc(events, func(e string) bool { return !strings.HasPrefix(e, "exhausted") })); n != 1 {
		t.Errorf("%d events of exhaustion", n)
	}
	// A restart finds the used-up file; lines that are added come into use.
	m, err = NewMatcher([]*Door{door}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file.Path(), []byte(" 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Refresh(); err != nil {
		t.Fatal(err)
	}
	if got := k.play(m, "5 5"); got != "A" {
		t.Errorf("after adding a line: %q", got)
	}
}

// TestOneTimeMovesOn: who is half way through a sequence when it is used up has
// nothing of the next one, here and in a Matcher that adopts.
func TestOneTimeMovesOn(t *testing.T) {
	file := oneTimeFile(t, " 1,2,3\n 1,2,4\n")
	doors := []*Door{{Name: "A", OneTime: file}}
	m, err := NewMatcher(doors, Config{})
	if err != nil {
		t.Fatal(err)
	}
	k := newKnocks(t)
	if got := k.play(m, "y:1 y:2 z:1 z:2 1 2 3 y:4"); got != "A" {
		t.Errorf("opened %q", got)
	}
	fresh, err := NewMatcher(doors, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Adopt(m); err != nil {
		t.Fatal(err)
	}
	if got := k.play(fresh, "z:4"); got != "" {
		t.Errorf("opened %q", got)
	}
	if got := k.play(fresh, "z:1 z:2 z:4"); got != "z:A" {
		t.Errorf("opened %q", got)
	}
}

// TestOneTimeDoorFails: what cannot be marked does not open, now or later.
func TestOneTimeDoorFails(t *testing.T) {
	file := oneTimeFile(t, " 1,2,3\n 4,5,6\n")
	var events []string
	m, err := NewMatcher([]*Door{{Name: "A", OneTime: file}}, Config{Observe: recordEvents(&events)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file.Path(), file.Path()+"x"); err != nil {
		t.Fatal(err)
	}
	k := newKnocks(t)
	if got := k.play(m, "1 2 3"); got != "" || !slices.Contains(events, "failed A 0") {
		t.Errorf("opened %q without a file; %q", got, events)
	}
	if err := os.Rename(file.Path()+"x", file.Path()); err != nil {
		t.Fatal(err)
	}
	if got := k.play(m, "1 2 3 4 5 6"); got != "A" {
		t.Errorf("opened %q", got)
	}
	if got := fileContent(t, file); got != "#1,2,3\n#4,5,6\n" {
		t.Errorf("the file: %q", got)
	}
}

// TestOneTimeRace: many sources send the same sequence at once; it opens once.
func TestOneTimeRace(t *testing.T) {
	const uses = 20
	m, err := NewMatcher([]*Door{{Name: "A", OneTime: oneTimeFile(t, strings.Repeat(" 1,2,3\n", uses))}}, Config{Limits: Limits{Sources: 1024}})
	if err != nil {
		t.Fatal(err)
	}
	var opened atomic.Int64
	var wg sync.WaitGroup
	for i := range uint32(4) {
		wg.Go(func() {
			for n := range uint32(200) {
				for _, port := range []uint16{1, 2, 3} {
					p := syn(ip4(i<<24|1), port, n*4+uint32(port), time.UnixMilli(int64(n)))
					opened.Add(int64(len(m.Add(&p, nil))))
				}
			}
		})
	}
	wg.Wait()
	if n := opened.Load(); n != uses {
		t.Errorf("%d lines opened %d times", uses, n)
	}
}

func TestAdopt(t *testing.T) {
	file := oneTimeFile(t, " 1,2\n 3,4\n")
	again, err := OpenOneTime(file.Path())
	if err != nil {
		t.Fatal(err)
	}
	doors := func(f *OneTimeFile, texts ...string) *Matcher {
		t.Helper()
		list := []*Door{{Name: "O", OneTime: f, Flags: Flags{Mask: SYN, Want: SYN}}}
		for _, text := range texts {
			list = append(list, testDoor(t, text))
		}
		m, err := NewMatcher(list, Config{Limits: Limits{Sources: 1024}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	old := doors(file, abc, other, "C=100,200,300")
	fresh := doors(again, "N=50,60,70,80", other, "C=100,200,300;within 5s", abc)
	k := newKnocks(t)
	if got := k.play(old, "1 2 7000 8000 12345 100 200 x6:7000 y:100 y:3"); got != "O" {
		t.Fatal(got)
	}
	if got := k.play(fresh, "x6:7000 x6:8000"); got != "" {
		t.Fatal(got)
	}
	if err := fresh.Adopt(old); err != nil {
		t.Fatal(err)
	}
	if fresh.Len() != 3 {
		t.Errorf("%d sources", fresh.Len())
	}
	if got := k.play(fresh, "9000 23456 300 x6:9000 y:4 1 2 3 4"); got != "A B x6:A y:O" {
		t.Errorf("opened %q", got)
	}
}
