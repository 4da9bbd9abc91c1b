// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWarnings(t *testing.T) {
	for _, test := range []struct {
		doors []string
		want  []string // a part of each
	}{
		{[]string{abc}, []string{"A: a scan of all ports in rising order"}},
		{[]string{"A=9000,8000,7000"}, []string{"A: a scan of all ports in falling order"}},
		{[]string{"A=8000,9000,7000"}, []string{"A: a scan, done twice, of all ports in rising order opens it"}},
		{[]string{"A=8000,9000,7500,7000"}, nil},
		{[]string{"A=8000,9500,7000,9000"}, nil},
		{[]string{"A=8000,7000,9500,9000"}, []string{"begun in the middle"}},
		{[]string{"A=7500,8000,9000,7000"}, []string{"begun in the middle"}},
		{[]string{abc + ";strict"}, nil},
		{[]string{"A=7000,7001,7002;strict"}, []string{"neighbours"}},
		{[]string{"A=2,3,1;strict"}, nil},
		{[]string{"A=7000"}, []string{"one port"}},
		{[]string{"A=7000;strict"}, []string{"one port"}},
		{[]string{"A=7000,8000;strict"}, []string{"2 steps"}},
		{[]string{"A=7000,8000:udp,9000"}, []string{"rising"}},
		{[]string{"A=8000,9000,7000:udp,7500:udp"}, []string{"rising"}}, // TCP, then UDP
		{[]string{"A=8000:udp,9000:udp,7000,7500"}, []string{"rising"}},
		{[]string{"A=7000,7000,7000,7000"}, nil},
		{[]string{abc + ";strict;any"}, []string{"flags syn"}},
		// Other doors' ports in between spoil, unless they are steps there.
		{[]string{"A=7000,8000,9000,9500", "B=8500,7500,8501,7501"}, nil},
		{[]string{"A=7000,8000,9000,9500", "B=7500,8500,9100,9200"}, []string{"A: a scan", "B: a scan"}},
		{[]string{"open=7000,8000,9000", "close=9000,8000,7000"}, []string{"open: a scan of all ports in rising", "close: a scan of all ports in falling"}},
	} {
		var doors []*Door
		for _, text := range test.doors {
			doors = append(doors, testDoor(t, text))
		}
		got := Warnings(doors)
		if len(got) != len(test.want) {
			t.Errorf("%v: %q", test.doors, got)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], test.want[i]) {
				t.Errorf("%v: %q, want %q", test.doors, got[i], test.want[i])
			}
		}
	}
}

// TestWarningsAreTrue: what the text says of scans is what real ones do, over
// every port.
func TestWarningsAreTrue(t *testing.T) {
	for _, steps := range permutations([]uint16{7000, 7777, 8888, 9999}) {
		d := testDoor(t, fmt.Sprintf("A=%d,%d,%d,%d", steps[0], steps[1], steps[2], steps[3]))
		m, err := NewMatcher([]*Door{d}, Config{Limits: Limits{Sources: 16}})
		if err != nil {
			t.Fatal(err)
		}
		opens := false
		for _, falling := range []bool{false, true} {
			src := sources["x"]
			if falling {
				src = sources["y"]
			}
			for pass := range uint32(4) {
				for n := range 65535 {
					port := uint16(n + 1)
					if falling {
						port = uint16(65535 - n)
					}
					// As masscan does: the same numbers at each pass.
					p := syn(src, port, 40_000, time.UnixMilli(int64(1000*pass)))
					opens = opens || len(m.Add(&p, nil)) > 0
				}
			}
		}
		if warned := len(Warnings([]*Door{d})) > 0; warned != opens {
			t.Errorf("%v: opened by scans %v, warned %v", steps, opens, warned)
		}
	}
}

func permutations(list []uint16) (all [][]uint16) {
	if len(list) == 0 {
		return [][]uint16{nil}
	}
	for i := range list {
		rest := slices.Concat(list[:i], list[i+1:])
		for _, p := range permutations(rest) {
			all = append(all, append([]uint16{list[i]}, p...))
		}
	}
	return all
}

func TestWarningsOneTime(t *testing.T) {
	used := &Door{Name: "U", OneTime: oneTimeFile(t, "#1\n text\n")}
	rising := &Door{Name: "R", OneTime: oneTimeFile(t, " 1,2,3\n")}
	got := Warnings([]*Door{used, rising})
	if len(got) != 3 || !strings.Contains(got[0], "line 2") || !strings.Contains(got[1], "never opens") || !strings.Contains(got[2], "rising") {
		t.Errorf("%q", got)
	}
	if Warnings(nil) != nil {
		t.Error("warnings without doors")
	}
}

func TestWarningsManyDoors(t *testing.T) {
	var doors []*Door
	for i := range 300 {
		doors = append(doors, testDoor(t, fmt.Sprintf("D%d=%d,%d,%d,%d", i, 20000+i, 30000-i, 40000+i, 10000+i)))
	}
	start := time.Now()
	Warnings(doors)
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}
