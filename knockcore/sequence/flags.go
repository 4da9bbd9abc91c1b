// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"fmt"
	"strings"
)

// The TCP flags that a test can name, as bits of the TCP header's flag byte.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG

	allFlags = FIN | SYN | RST | PSH | ACK | URG
)

var flagNames = [...]string{"fin", "syn", "rst", "psh", "ack", "urg"}

// Flags is a test of TCP flags (port-sequences.md section 2, TCPFlags): a packet
// passes if the flags in Mask are as in Want; the others do not matter, so that
// "syn" also accepts SYN+ACK. The zero value accepts every packet. Want has no
// bit outside Mask.
type Flags struct {
	Mask, Want uint8
}

// ParseFlags reads flag names, parted by commas or blanks, each with an optional
// leading "!" for "must be clear": "syn", "syn,!ack", "syn !ack !fin". The names
// are fin, syn, rst, psh, ack and urg in any case; for a flag named twice the
// last word wins. Empty items are errors.
func ParseFlags(s string) (Flags, error) {
	var f Flags
	for item := range strings.SplitSeq(s, ",") {
		fields := strings.Fields(item)
		if len(fields) == 0 {
			return Flags{}, fmt.Errorf("TCP flags %q: an empty item; write for example syn,!ack", s)
		}
		for _, word := range fields {
			bit, set, err := parseFlag(word)
			if err != nil {
				return Flags{}, fmt.Errorf("TCP flags %q: %w", s, err)
			}
			f.Mask |= bit
			f.Want &^= bit
			f.Want |= set
		}
	}
	return f, nil
}

func parseFlag(word string) (bit, want uint8, err error) {
	name, negated := strings.CutPrefix(word, "!")
	for i, known := range flagNames {
		if strings.EqualFold(name, known) {
			bit = 1 << i
			if negated {
				return bit, 0, nil
			}
			return bit, bit, nil
		}
	}
	return 0, 0, fmt.Errorf("unknown flag %q; expect fin, syn, rst, psh, ack, urg, each with ! in front or not", word)
}

// And adds the words of a later test, as several TCPFlags lines of a knockd.conf
// add up: where both name a flag, later wins.
func (f Flags) And(later Flags) Flags {
	return Flags{Mask: f.Mask | later.Mask, Want: f.Want&^later.Mask | later.Want}
}

// Match reports whether a packet with these TCP flags passes.
func (f Flags) Match(flags uint8) bool { return flags&f.Mask == f.Want }

// IsZero reports whether the test accepts everything.
func (f Flags) IsZero() bool { return f.Mask == 0 }

// String writes the test as ParseFlags reads it, "" for the zero value.
func (f Flags) String() string {
	var words []string
	for i, name := range flagNames {
		switch bit := uint8(1) << i; {
		case f.Mask&bit == 0:
		case f.Want&bit == 0:
			words = append(words, "!"+name)
		default:
			words = append(words, name)
		}
	}
	return strings.Join(words, ",")
}

func (f Flags) validate() error {
	if f.Mask&^allFlags != 0 || f.Want&^f.Mask != 0 {
		return fmt.Errorf("TCP flag test %#x/%#x is not one; use ParseFlags", f.Want, f.Mask)
	}
	return nil
}
