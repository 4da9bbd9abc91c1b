// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Times of doors.
const (
	// DefaultWithin is how long a whole sequence may take where a door says
	// nothing: knockd's Seq_Timeout.
	DefaultWithin = 25 * time.Second
	// MaxWithin is the greatest Within and Idle.
	MaxWithin = 24 * time.Hour
)

// Door is a port sequence and what it opens (port-sequences.md sections 2 and
// 9). A Matcher never changes it; nobody else may while a Matcher has it.
type Door struct {
	// Name names the door in messages. Two doors may have the same name.
	Name string
	// Steps is the sequence: 1 to 32 steps. It is empty if OneTime is set.
	Steps []Step
	// Flags is the test of the TCP flags for steps that have none of their own
	// (knockd's TCPFlags); zero accepts every TCP packet.
	Flags Flags
	// Within is how long the whole sequence may take, first to last packet, both
	// ends included: 1 ms to 24 h in whole milliseconds, rounded up. 0 means 25 s,
	// or no limit but Idle's if that is set (knock-rs's timeout).
	Within time.Duration
	// Idle is the longest pause between two steps, included: 1 ms to 24 h; 0 means
	// that only Within counts.
	Idle time.Duration
	// Strict makes everything that the source sees between two steps spoil the
	// attempt, except the next step and copies: hits on any door's ports, also by
	// others behind the same address, and on ports of no door as far as they are
	// given to Matcher.Add. Only packets that pass Flags count.
	Strict bool
	// Targets are the addresses that the packets may go to (knockd's Target);
	// empty means any that the source delivers. One sequence may go to several.
	Targets []netip.Addr
	// OneTime holds the sequences of a door whose sequence changes with each
	// opening, instead of Steps.
	OneTime *OneTimeFile
	// Payload is the owner's: what the door opens, for example. The package does
	// not look at it.
	Payload any
}

// Validate reports the first thing wrong with the door.
func (d *Door) Validate() error {
	if err := d.validate(); err != nil {
		return fmt.Errorf("door %s: %w", d.Name, err)
	}
	return nil
}

func (d *Door) validate() error {
	if d.Name == "" {
		return fmt.Errorf("it has no name")
	}
	switch {
	case d.OneTime != nil && len(d.Steps) > 0:
		return fmt.Errorf("it has both a sequence and a file of one-time sequences; keep one of them")
	case d.OneTime == nil:
		if err := validateSteps(d.Steps); err != nil {
			return err
		}
	}
	if err := d.Flags.validate(); err != nil {
		return err
	}
	for _, limit := range []struct {
		name string
		d    time.Duration
	}{{"within", d.Within}, {"idle", d.Idle}} {
		if limit.d < 0 || limit.d > MaxWithin {
			return fmt.Errorf("%s is %v; expect at most %v", limit.name, limit.d, MaxWithin)
		}
	}
	for _, a := range d.Targets {
		if !a.IsValid() || a.IsUnspecified() {
			return fmt.Errorf("target %v is not the address of a host", a)
		}
	}
	return nil
}

// sequence is the door's sequence at present: nil if its file is used up.
func (d *Door) sequence() []Step {
	if d.OneTime != nil {
		return d.OneTime.Current()
	}
	return d.Steps
}

// door is a Door made ready for one sequence. It is immutable; a one-time door
// gets a new one with the next version.
type door struct {
	pub     *Door
	id      uint16 // index in the Matcher's list, plus 1
	version uint32
	raw     []Step // as configured or read
	steps   []Step // with the door's flags filled in
	flags   Flags
	uniform bool // every TCP step has the door's flags
	strict  bool
	// distinct: no protocol and port occurs twice. Then a packet can only ever be
	// one step, and counting a copy does no harm.
	distinct bool
	within   uint32 // ms
	idle     uint32 // ms, 0 is off
	targets  []netip.Addr
}

func compile(pub *Door, id uint16, version uint32) *door {
	steps := pub.sequence()
	d := &door{
		pub: pub, id: id, version: version, raw: steps, steps: slices.Clone(steps), flags: pub.Flags,
		uniform: true, strict: pub.Strict, distinct: true, idle: millis(pub.Idle),
	}
	seen := make(map[uint32]bool)
	for i := range d.steps {
		s := &d.steps[i]
		if s.Protocol == knockcore.TCP {
			if s.Flags.IsZero() {
				s.Flags = d.flags
			}
			d.uniform = d.uniform && s.Flags == d.flags
		}
		key := portKey(s.Protocol, s.Port)
		d.distinct = d.distinct && !seen[key]
		seen[key] = true
	}
	switch {
	case pub.Within > 0:
		d.within = millis(pub.Within)
	case pub.Idle > 0:
		d.within = uint32(min(uint64(d.idle)*uint64(max(1, len(steps))), uint64(millis(MaxWithin))))
	default:
		d.within = millis(DefaultWithin)
	}
	for _, a := range pub.Targets {
		d.targets = append(d.targets, plain(a))
	}
	return d
}

// sensitive reports whether a copy of a packet could count twice.
func (d *door) sensitive() bool { return !d.distinct || len(d.steps) == 1 }

// sees reports whether a packet concerns the door at all, apart from its port.
func (d *door) sees(p *Packet) bool {
	return d.to(p) && (p.Protocol != knockcore.TCP || d.flags.Match(p.TCPFlags))
}

func (d *door) to(p *Packet) bool {
	if len(d.targets) == 0 {
		return true
	}
	return slices.Contains(d.targets, plain(p.Dst))
}

// accept keeps of a mask of steps with the packet's port those that accept the
// packet.
func (d *door) accept(p *Packet, mask uint32) uint32 {
	if !d.to(p) {
		return 0
	}
	if p.Protocol != knockcore.TCP {
		return mask
	}
	if d.uniform {
		if d.flags.Match(p.TCPFlags) {
			return mask
		}
		return 0
	}
	for i := range d.steps {
		if mask&(1<<i) != 0 && !d.steps[i].Flags.Match(p.TCPFlags) {
			mask &^= 1 << i
		}
	}
	return mask
}

// plain is the address as it is compared: without zone, IPv4 as IPv4.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func millis(d time.Duration) uint32 {
	ms := (d + time.Millisecond - 1) / time.Millisecond
	return uint32(min(ms, math.MaxInt32))
}
