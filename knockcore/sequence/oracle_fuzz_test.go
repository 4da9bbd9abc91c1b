// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// fuzzInput turns bytes into doors and packets.
type fuzzInput []byte

func (in *fuzzInput) next(n int) int {
	if len(*in) == 0 {
		return 0
	}
	b := (*in)[0]
	*in = (*in)[1:]
	return int(b) % n
}

func (in *fuzzInput) doors() []*Door {
	doors := make([]*Door, 1+in.next(4))
	for i := range doors {
		d := &Door{
			Name: string(rune('A' + i)), Strict: in.next(4) == 0,
			Within: []time.Duration{time.Second, 5 * time.Second, 0, 40 * time.Second}[in.next(4)],
			Idle:   []time.Duration{0, 0, 700 * time.Millisecond, 3 * time.Second}[in.next(4)],
			Flags:  []Flags{{}, {Mask: SYN, Want: SYN}, {Mask: SYN | ACK, Want: SYN}}[in.next(3)],
		}
		if in.next(4) == 0 {
			d.Targets = []netip.Addr{netip.MustParseAddr("203.0.113.1")}
		}
		for range 1 + in.next(5) {
			step := Step{Protocol: knockcore.TCP, Port: uint16(1 + in.next(4))}
			switch in.next(6) {
			case 0:
				step.Protocol = knockcore.UDP
			case 1:
				step.Flags = Flags{Mask: ACK, Want: ACK}
			}
			d.Steps = append(d.Steps, step)
		}
		doors[i] = d
	}
	return doors
}

func (in *fuzzInput) packet(earlier []Packet, now time.Time) Packet {
	p := Packet{
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("203.0.113.1"),
		Protocol: knockcore.TCP, DstPort: uint16(1 + in.next(5)), TCPFlags: SYN,
		SrcPort: uint16(len(earlier)), Seq: 1000 + uint32(len(earlier)),
	}
	kind := in.next(32)
	switch kind % 8 {
	case 0:
		p.Protocol, p.Seq, p.TCPFlags = knockcore.UDP, 0, 0
	case 1:
		if len(earlier) > 0 {
			p = earlier[in.next(len(earlier))]
		}
	case 2:
		p.SrcPort, p.Seq = 5, uint32(in.next(2)*5)
	case 3:
		p.TCPFlags = []uint8{ACK, SYN | ACK, FIN, 0}[kind/8]
	case 4:
		if kind/8 == 0 {
			p.Src = netip.MustParseAddr("2001:db8::1")
		} else if kind/8 == 1 {
			p.Dst = netip.MustParseAddr("203.0.113.2")
		}
	}
	p.Time = now.Add([]time.Duration{0, 1, 10, 100, 350, 700, 701, 1000, 3000, 26000}[in.next(10)] * time.Millisecond)
	return p
}

func compareWithOracle(t *testing.T, data []byte) {
	in := fuzzInput(data)
	doors := in.doors()
	m, err := NewMatcher(doors, Config{Limits: Limits{Sources: 16}})
	if err != nil {
		t.Fatal(err)
	}
	o := newOracle(m)
	var sent []Packet
	now := time.UnixMilli(1_700_000_000_000)
	for len(in) > 0 && len(sent) < 24 {
		p := in.packet(sent, now)
		now = p.Time
		sent = append(sent, p)
		var got []opening
		for _, match := range m.Add(&p, nil) {
			got = append(got, opening{match.Door.Name, match.Started.Local()})
		}
		want := o.add(p)
		for i := range want {
			want[i].start = want[i].start.Local()
		}
		order := func(a, b opening) int { return cmp.Compare(a.door, b.door) }
		slices.SortFunc(got, order)
		slices.SortFunc(want, order)
		if !slices.Equal(got, want) {
			for _, d := range doors {
				t.Logf("door %s: %+v", d.Name, *d)
			}
			for _, p := range sent {
				t.Logf("%v %v → %v %v/%d flags %#x sport %d seq %d", p.Time.UnixMilli(), p.Src, p.Dst, p.Protocol, p.DstPort, p.TCPFlags, p.SrcPort, p.Seq)
			}
			t.Fatalf("packet %d opens %v, want %v", len(sent)-1, got, want)
		}
	}
}

// FuzzMatcher: doors open exactly when the brute-force reading of the rules says.
func FuzzMatcher(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 64 {
		f.Add(randomBytes(rnd, 120))
	}
	f.Fuzz(compareWithOracle)
}

func TestMatcherOracle(t *testing.T) {
	rounds := 60_000
	if testing.Short() {
		rounds = 5_000
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range rounds {
		compareWithOracle(t, randomBytes(rnd, 60+i%80))
	}
}

func randomBytes(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}
