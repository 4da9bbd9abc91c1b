// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Warnings says what is weak about doors, one sentence a finding, with what to
// do. It tries the scans that a stranger would run on a Matcher with all the
// doors: every port in rising or in falling order, once and twice
// (port-sequences.md sections 3.2 and 11.7). The doors must be valid.
func Warnings(doors []*Door) []string {
	opened := scanAll(doors)
	var list []string
	for i, d := range doors {
		steps := d.sequence()
		warn := func(format string, args ...any) {
			list = append(list, fmt.Sprintf("door %s: ", d.Name)+fmt.Sprintf(format, args...))
		}
		if d.OneTime != nil {
			for _, bad := range d.OneTime.Skipped() {
				warn("%s is skipped: %s", d.OneTime.Path(), bad)
			}
			if len(steps) == 0 {
				warn("%s has no sequence left, so the door never opens: add lines and reload", d.OneTime.Path())
				continue
			}
		}
		switch {
		case len(steps) == 1:
			warn("one port is no secret, every scan opens it: use four steps or more")
		case opened[i] != "" && d.Strict:
			warn("%s opens it although it is strict, since its ports (%s) are neighbours: leave gaps, or choose an order that neither rises nor falls",
				opened[i], FormatSequence(steps))
		case opened[i] != "" && len(steps) < 4:
			warn("%s opens it (%s): add `strict`, or use four steps or more in an order that neither rises nor falls",
				opened[i], FormatSequence(steps))
		case opened[i] != "":
			warn("%s opens it (%s): choose an order that neither rises nor falls, also not when it is begun in the middle, or add `strict`",
				opened[i], FormatSequence(steps))
		case len(steps) < 3:
			warn("%d steps are soon guessed: use four or more", len(steps))
		}
		if d.Strict && d.Flags.IsZero() && slices.ContainsFunc(steps, func(s Step) bool { return s.Protocol == knockcore.TCP }) {
			warn("it is strict and takes any TCP packet, so that packets of other connections spoil it: add `flags syn`")
		}
	}
	return list
}

// scanAll says for each door which scan opens it, the simplest, or "".
func scanAll(doors []*Door) []string {
	var tried []*Door
	ports := make(map[Step]bool)
	protocols := make(map[knockcore.Protocol]bool)
	for i, d := range doors {
		c := &Door{Name: d.Name, Within: d.Within, Idle: d.Idle, Strict: d.Strict, Payload: i}
		for _, step := range d.sequence() {
			step.Flags = Flags{} // the scan is made to fit
			c.Steps = append(c.Steps, step)
			ports[step] = true
			// The closed ports beside it: a scan hits those as well.
			ports[Step{Protocol: step.Protocol, Port: step.Port - 1}] = true
			ports[Step{Protocol: step.Protocol, Port: step.Port + 1}] = true
			protocols[step.Protocol] = true
		}
		if len(c.Steps) > 0 {
			tried = append(tried, c)
		}
	}
	delete(ports, Step{Protocol: knockcore.TCP})
	delete(ports, Step{Protocol: knockcore.UDP})
	hits := slices.Collect(maps.Keys(ports))

	orders := scanOrders
	if len(protocols) < 2 {
		orders = orders[:1]
	}
	opened := make([]string, len(doors))
	for _, falling := range []bool{false, true} {
		for _, order := range orders {
			slices.SortFunc(hits, order)
			if falling {
				slices.Reverse(hits)
			}
			for door, pass := range scan(tried, hits) {
				name := scanNames[pass]
				if falling {
					name += " of all ports in falling order"
				} else {
					name += " of all ports in rising order"
				}
				if opened[door] == "" || pass == 0 && strings.HasPrefix(opened[door], scanNames[1]) {
					opened[door] = name
				}
			}
		}
	}
	return opened
}

var (
	scanNames  = [...]string{"a scan", "a scan, done twice,"}
	scanOrders = []func(a, b Step) int{
		func(a, b Step) int { return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol)) },
		func(a, b Step) int { return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port)) },
		func(a, b Step) int { return cmp.Or(cmp.Compare(b.Protocol, a.Protocol), cmp.Compare(a.Port, b.Port)) },
	}
)

// scan hits ports in order, twice, and returns the doors that open (their
// Payload) with the pass, 0 or 1, in which they did first.
func scan(doors []*Door, hits []Step) map[int]int {
	opened := make(map[int]int)
	m, err := NewMatcher(doors, Config{Limits: Limits{Sources: ways, Memory: 1 << 30, DoorsPerSource: len(doors)}})
	if err != nil {
		return opened
	}
	var matches []Match
	p := Packet{Src: netip.AddrFrom4([4]byte{192, 0, 2, 1}), TCPFlags: SYN, Time: time.Unix(0, 0)}
	for pass := range scanNames {
		for _, step := range hits {
			p.Protocol, p.DstPort = step.Protocol, step.Port
			p.SrcPort++
			p.Seq += 7
			matches = m.Add(&p, matches[:0])
			for _, match := range matches {
				door := match.Door.Payload.(int)
				if _, known := opened[door]; !known {
					opened[door] = pass
				}
			}
		}
	}
	return opened
}
