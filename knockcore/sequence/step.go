// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// MaxSteps is the greatest length of a sequence, as knockd's.
const MaxSteps = 32

// Step is one knock of a sequence.
type Step struct {
	// Protocol is TCP or UDP.
	Protocol knockcore.Protocol
	// Port is the destination port: 1 to 65535.
	Port uint16
	// Flags is the test of the TCP flags; zero means the door's. UDP steps have
	// none.
	Flags Flags
}

// String writes the step as "tcp/7000", without its flags.
func (s Step) String() string { return fmt.Sprintf("%v/%d", s.Protocol, s.Port) }

// ParseStep reads one step: "tcp/7000", "7000:udp" as in a knockd.conf, or a
// number alone, which means TCP. The protocol may be in any case, and blanks may
// surround the colon; the port is 1 to 65535 in decimal digits.
//
// It is stricter than knockd on purpose: what knockd reads as port 0, wraps, or
// cuts off at the first strange letter (port-sequences.md section 2) is an error
// here.
func ParseStep(text string) (Step, error) {
	if len(text) > 64 {
		return Step{}, fmt.Errorf("step %q...: too long for a port", text[:32])
	}
	port, proto := strings.TrimSpace(text), "tcp"
	if before, after, found := strings.Cut(port, "/"); found {
		proto, port = before, after
	} else if before, after, found := strings.Cut(port, ":"); found {
		port, proto = strings.TrimRight(before, " \t"), strings.TrimLeft(after, " \t")
	}
	var s Step
	switch {
	case strings.EqualFold(proto, "tcp"):
		s.Protocol = knockcore.TCP
	case strings.EqualFold(proto, "udp"):
		s.Protocol = knockcore.UDP
	default:
		return Step{}, fmt.Errorf("step %q: unknown protocol %q; expect tcp or udp, such as tcp/7000 or 7000:udp", text, proto)
	}
	n, err := strconv.ParseUint(port, 10, 64)
	switch {
	case port == "":
		return Step{}, fmt.Errorf("step %q: the port is missing", text)
	case err != nil || n > 65535 || n == 0:
		return Step{}, fmt.Errorf("step %q: %q is not a port from 1 to 65535", text, port)
	}
	s.Port = uint16(n)
	return s, nil
}

// ParseSequence reads 1 to 32 steps: parted by commas as in a knockd.conf
// ("7000,8000:udp, 9000"), or by blanks ("tcp/7000 udp/8000"). An empty item, as
// after a trailing comma, is an error.
func ParseSequence(text string) ([]Step, error) {
	items := strings.Fields(text)
	if strings.ContainsAny(text, ",:") {
		items = strings.SplitN(text, ",", MaxSteps+2)
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("the sequence is empty; write for example 7000,8000:udp,9000")
	}
	if len(items) > MaxSteps {
		return nil, fmt.Errorf("the sequence has more than %d steps", MaxSteps)
	}
	steps := make([]Step, len(items))
	for i, item := range items {
		if strings.TrimSpace(item) == "" {
			return nil, fmt.Errorf("item %d of the sequence is empty; is there a comma too many?", i+1)
		}
		var err error
		if steps[i], err = ParseStep(item); err != nil {
			return nil, err
		}
	}
	return steps, nil
}

// FormatSequence writes steps as "tcp/7000 udp/8000", which ParseSequence reads;
// flags are left out.
func FormatSequence(steps []Step) string {
	var b strings.Builder
	for i, s := range steps {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s.String())
	}
	return b.String()
}

func validateSteps(steps []Step) error {
	switch {
	case len(steps) == 0:
		return fmt.Errorf("it has no steps; write for example `sequence tcp/7000 udp/8000 tcp/9000`")
	case len(steps) > MaxSteps:
		return fmt.Errorf("it has %d steps; the most is %d", len(steps), MaxSteps)
	}
	for i, s := range steps {
		switch {
		case s.Protocol != knockcore.TCP && s.Protocol != knockcore.UDP:
			return fmt.Errorf("step %d: the protocol must be tcp or udp", i+1)
		case s.Port == 0:
			return fmt.Errorf("step %d: port 0 cannot be knocked at; ports are 1 to 65535", i+1)
		case s.Protocol == knockcore.UDP && !s.Flags.IsZero():
			return fmt.Errorf("step %d: a UDP step has no TCP flags", i+1)
		}
		if err := s.Flags.validate(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}
