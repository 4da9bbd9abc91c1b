// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// knocks is a source of packets written as a script: words parted by blanks.
//
//	7000          a SYN to tcp/7000 from a fresh source port, 10 ms after the last packet
//	u7000         a datagram to udp/7000
//	7000/ack,fin  with these flags; 7000/none without any
//	7000'         a copy of the last packet to that port from that source
//	7000#5        with source port and sequence number 5
//	u7000#5       with source port 5
//	y:7000        from source y; sources are x, y, z and x6, y6 (IPv6)
//	>2:7000       to the host's second address
//	+1.5s         1.5 s pass
//	-10ms         so that the next packet comes at the same time
type knocks struct {
	t     testing.TB
	now   time.Time
	ports uint16
	last  map[string]Packet
}

func newKnocks(t testing.TB) *knocks {
	return &knocks{t: t, now: time.UnixMilli(1_750_000_000_950), ports: 40_000, last: make(map[string]Packet)}
}

var sources = map[string]netip.Addr{
	"x": netip.MustParseAddr("192.0.2.1"), "y": netip.MustParseAddr("192.0.2.2"), "z": netip.MustParseAddr("198.51.100.7"),
	"x6": netip.MustParseAddr("2001:db8::1"), "y6": netip.MustParseAddr("2001:db8:1::1"),
}

func (k *knocks) packet(word string) (p Packet, ok bool) {
	if word[0] == '+' || word[0] == '-' {
		d, err := time.ParseDuration(word)
		if err != nil {
			k.t.Fatal(err)
		}
		k.now = k.now.Add(d)
		return p, false
	}
	name := "x"
	dst := netip.MustParseAddr("203.0.113.1")
	if before, after, found := strings.Cut(word, ":"); found {
		if to, isTarget := strings.CutPrefix(before, ">"); isTarget {
			dst = netip.MustParseAddr("203.0.113." + to)
		} else {
			name = before
		}
		word = after
	}
	src, found := sources[name]
	if !found {
		k.t.Fatalf("no source %q", name)
	}
	k.now = k.now.Add(10 * time.Millisecond)
	if before, isCopy := strings.CutSuffix(word, "'"); isCopy {
		p, found := k.last[name+before]
		if !found {
			k.t.Fatalf("%s has no original", word)
		}
		p.Time = k.now
		return p, true
	}
	k.ports++
	p = Packet{
		Src: src, Dst: dst, Protocol: knockcore.TCP, SrcPort: k.ports, TCPFlags: SYN,
		Seq: uint32(k.ports) * 2654435761, Time: k.now,
	}
	word, key, fixed := strings.Cut(word, "#")
	if fixed {
		n, err := strconv.Atoi(key)
		if err != nil {
			k.t.Fatal(err)
		}
		p.SrcPort, p.Seq = uint16(n), uint32(n)
	}
	word, flags, given := strings.Cut(word, "/")
	if given {
		p.TCPFlags = 0
		if flags != "none" {
			f, err := ParseFlags(flags)
			if err != nil {
				k.t.Fatal(err)
			}
			p.TCPFlags = f.Want
		}
	}
	name += word
	if port, udp := strings.CutPrefix(word, "u"); udp {
		p.Protocol, p.TCPFlags, p.Seq, word = knockcore.UDP, 0, 0, port
	}
	n, err := strconv.ParseUint(word, 10, 16)
	if err != nil {
		k.t.Fatal(err)
	}
	p.DstPort = uint16(n)
	k.last[name] = p
	return p, true
}

// play sends a script to m and returns what opened: "A B", with the source where
// it is not x: "y:A".
func (k *knocks) play(m *Matcher, script string) string {
	var opened []string
	for word := range strings.FieldsSeq(script) {
		p, ok := k.packet(word)
		if !ok {
			continue
		}
		for _, match := range m.Add(&p, nil) {
			name := match.Door.Name
			if match.Source != sources["x"] {
				for source, addr := range sources {
					if addr == match.Source {
						name = source + ":" + name
					}
				}
			}
			opened = append(opened, name)
		}
	}
	return strings.Join(opened, " ")
}

// testDoor makes a door of "NAME=SEQUENCE[;option]...", with the options syn,
// strict, any, within DURATION, idle DURATION and to ADDRESS; syn is on unless
// any is given.
func testDoor(t testing.TB, text string) *Door {
	t.Helper()
	name, rest, _ := strings.Cut(text, "=")
	words := strings.Split(rest, ";")
	steps, err := ParseSequence(words[0])
	if err != nil {
		t.Fatal(err)
	}
	d := &Door{Name: name, Steps: steps, Flags: Flags{Mask: SYN, Want: SYN}}
	for _, option := range words[1:] {
		key, value, _ := strings.Cut(option, " ")
		switch key {
		case "strict":
			d.Strict = true
		case "any":
			d.Flags = Flags{}
		case "within":
			d.Within, err = time.ParseDuration(value)
		case "idle":
			d.Idle, err = time.ParseDuration(value)
		case "to":
			d.Targets = append(d.Targets, netip.MustParseAddr(value))
		case "flags":
			d.Flags, err = ParseFlags(value)
		default:
			t.Fatalf("unknown option %q", option)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func testMatcher(t testing.TB, doors ...string) *Matcher {
	t.Helper()
	list := make([]*Door, len(doors))
	for i, d := range doors {
		list[i] = testDoor(t, d)
	}
	m, err := NewMatcher(list, Config{Limits: Limits{Sources: 1024}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}
