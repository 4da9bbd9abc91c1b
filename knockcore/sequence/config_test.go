// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestPorts(t *testing.T) {
	m := testMatcher(t, "A=7000,7002:udp,7001,65535,65534", "B=7001:udp,7002:udp,1")
	if got := fmt.Sprint(m.Ports()); got != "[tcp/1 tcp/7000-7001 tcp/65534-65535 udp/7001-7002]" {
		t.Error(got)
	}
	for _, test := range []struct {
		doors []string
		want  string
		all   bool
	}{
		{[]string{abc, other}, "syn", false},
		{[]string{abc + ";flags syn,!ack", "B=1;flags syn,!ack,!fin"}, "syn,!ack", false},
		{[]string{abc + ";flags syn", "B=1;flags !syn"}, "", false},
		{[]string{abc, "B=1;any"}, "", false},
		{[]string{abc, "B=1:udp;any"}, "syn", false},
		{[]string{abc, "B=1:udp;any;strict"}, "", true},
		{[]string{"B=1:udp;any"}, "", false},
		{[]string{abc + ";strict"}, "syn", true},
	} {
		m := testMatcher(t, test.doors...)
		if got := m.TCPFlags().String(); got != test.want || m.WantsAll() != test.all {
			t.Errorf("%v: flags %q, all %v", test.doors, got, m.WantsAll())
		}
	}
}

func TestStepFlags(t *testing.T) {
	d := testDoor(t, abc)
	d.Steps[1].Flags = Flags{Mask: SYN | FIN, Want: FIN}
	m, err := NewMatcher([]*Door{d}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	k := newKnocks(t)
	if got := k.play(m, "7000 8000 9000"); got != "" {
		t.Errorf("opened %q", got)
	}
	if got := k.play(m, "7000 8000/fin 9000"); got != "A" {
		t.Errorf("opened %q", got)
	}
}

func TestNewMatcherErrors(t *testing.T) {
	file := oneTimeFile(t, " 1\n")
	steps := []Step{{Protocol: knockcore.TCP, Port: 1}}
	for want, d := range map[string]*Door{
		"name":       {Steps: steps},
		"no steps":   {Name: "x"},
		"33 steps":   {Name: "x", Steps: slices.Repeat(steps, 33)},
		"port 0":     {Name: "x", Steps: []Step{{Protocol: knockcore.TCP}}},
		"protocol":   {Name: "x", Steps: []Step{{Port: 1}}},
		"UDP step":   {Name: "x", Steps: []Step{{Protocol: knockcore.UDP, Port: 1, Flags: Flags{Mask: SYN, Want: SYN}}}},
		"flag test":  {Name: "x", Steps: steps, Flags: Flags{Want: SYN}},
		"step 1":     {Name: "x", Steps: []Step{{Protocol: knockcore.TCP, Port: 1, Flags: Flags{Mask: 0x40}}}},
		"within":     {Name: "x", Steps: steps, Within: -1},
		"idle":       {Name: "x", Steps: steps, Idle: 25 * time.Hour},
		"target":     {Name: "x", Steps: steps, Targets: []netip.Addr{netip.IPv4Unspecified()}},
		"both":       {Name: "x", Steps: steps, OneTime: file},
		"door x: it": {Name: "x"},
	} {
		if _, err := NewMatcher([]*Door{d}, Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := NewMatcher([]*Door{{Name: "x", OneTime: file}, {Name: "y", OneTime: file}}, Config{}); err == nil || !strings.Contains(err.Error(), "share") {
		t.Errorf("a shared file: %v", err)
	}
	if _, err := NewMatcher(make([]*Door, 1<<16), Config{}); err == nil {
		t.Error("65536 doors")
	}
	for _, limits := range []Limits{{Sources: 15}, {Sources: -1}, {Sources: 1 << 25}, {Memory: -1}, {Memory: 100}, {DoorsPerSource: -1}} {
		if _, err := NewMatcher([]*Door{testDoor(t, abc)}, Config{Limits: limits}); err == nil {
			t.Errorf("%+v: no error", limits)
		}
	}
	m, err := NewMatcher(nil, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if newKnocks(t).play(m, "1 2 3") != "" || m.Ports() != nil || m.WantsAll() {
		t.Error("no doors")
	}
}

func TestMemory(t *testing.T) {
	for _, test := range []struct {
		doors   []string
		config  Config
		sources int
	}{
		{[]string{abc}, Config{}, DefaultSources},
		{[]string{abc, other, "R=1,1,1"}, Config{}, DefaultSources},
		{[]string{"L=" + strings.Repeat("1,", 31) + "1"}, Config{}, 1 << 15},
		{[]string{abc}, Config{Limits: Limits{Sources: 100}}, 64},
		{[]string{abc}, Config{Limits: Limits{Memory: 1 << 20}}, 1 << 12},
	} {
		m := newTestMatcher(t, test.config, test.doors...)
		if m.Capacity() != test.sources {
			t.Errorf("%v: room for %d sources, %d bytes each", test.doors, m.Capacity(), m.recordBytes())
		}
		if m.MemoryBytes() > DefaultMemory {
			t.Errorf("%v: %d bytes", test.doors, m.MemoryBytes())
		}
	}
}
