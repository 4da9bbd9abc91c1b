// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestParseStep(t *testing.T) {
	for text, want := range map[string]Step{
		"7000":        {Protocol: knockcore.TCP, Port: 7000},
		"tcp/7000":    {Protocol: knockcore.TCP, Port: 7000},
		"udp/1":       {Protocol: knockcore.UDP, Port: 1},
		"UDP/65535":   {Protocol: knockcore.UDP, Port: 65535},
		"7000:udp":    {Protocol: knockcore.UDP, Port: 7000},
		"7000:TCP":    {Protocol: knockcore.TCP, Port: 7000},
		" 7000 : Udp": {Protocol: knockcore.UDP, Port: 7000},
		"07000":       {Protocol: knockcore.TCP, Port: 7000},
	} {
		if got, err := ParseStep(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	// What knockd makes of these is in port-sequences.md section 2.
	for _, text := range []string{
		"", " ", "0", "65536", "-1", "+7000", "7000-7002", "7000;8000", "0x50", "ssh", "7000:", ":tcp", "tcp/", "/7000",
		"7000:icmp", "7000:udp:udp", "tcp/7000:udp", "99999999999999999999", "7000 8000", "７000", strings.Repeat("7", 4000),
	} {
		if got, err := ParseStep(text); err == nil {
			t.Errorf("%q: %v", text, got)
		} else if len(err.Error()) > 300 {
			t.Errorf("%.20q: an error of %d bytes", text, len(err.Error()))
		}
	}
}

func TestParseSequence(t *testing.T) {
	for text, want := range map[string]string{
		"7000,8000,9000":               "tcp/7000 tcp/8000 tcp/9000",
		" 7000 , 8000 : UDP ,9000 ":    "tcp/7000 udp/8000 tcp/9000",
		"7000:udp":                     "udp/7000",
		"tcp/7000 udp/8000\ttcp/9":     "tcp/7000 udp/8000 tcp/9",
		"tcp/7000, udp/8000":           "tcp/7000 udp/8000",
		"1":                            "tcp/1",
		"7000,7000,7000":               "tcp/7000 tcp/7000 tcp/7000",
		strings.Repeat("1,", 31) + "1": strings.TrimSpace(strings.Repeat("tcp/1 ", 32)),
	} {
		if got, err := ParseSequence(text); err != nil || FormatSequence(got) != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", " ", ",", "7000,", ",7000", "7000,,8000", "7000 8000,9000", "7000,x", strings.Repeat("1,", 32) + "1",
		strings.Repeat("1 ", 33), strings.Repeat(",", 1<<20), "7000, 0", "7000\x00,8000",
	} {
		if got, err := ParseSequence(text); err == nil {
			t.Errorf("%.40q: %v", text, got)
		}
	}
}

func TestParseFlags(t *testing.T) {
	for text, want := range map[string]Flags{
		"syn":                     {Mask: SYN, Want: SYN},
		"SYN,!ack":                {Mask: SYN | ACK, Want: SYN},
		"syn !ack  !Fin":          {Mask: SYN | ACK | FIN, Want: SYN},
		"syn, !ack":               {Mask: SYN | ACK, Want: SYN},
		"syn,!syn":                {Mask: SYN, Want: 0},
		"!syn,syn":                {Mask: SYN, Want: SYN},
		"fin,rst,psh,ack,urg,syn": {Mask: allFlags, Want: allFlags},
	} {
		got, err := ParseFlags(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := ParseFlags(got.String()); err != nil || again != got {
			t.Errorf("%q is written %q", text, got)
		}
	}
	for _, text := range []string{"", " ", "syn,", ",syn", "syn,,ack", "!", "! syn", "!!syn", "ece", "cwr", "s", "syn|ack"} {
		if got, err := ParseFlags(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
	if (Flags{}).String() != "" || !(Flags{}).IsZero() || !(Flags{}).Match(0xff) {
		t.Error("the zero value is not any")
	}
	syn, notSyn := Flags{Mask: SYN, Want: SYN}, Flags{Mask: SYN | ACK, Want: ACK}
	if got := syn.And(notSyn); got != notSyn {
		t.Errorf("the later line does not win: %+v", got)
	}
	if got := notSyn.And(syn); got != (Flags{Mask: SYN | ACK, Want: SYN | ACK}) {
		t.Errorf("lines do not add up: %+v", got)
	}
	if !syn.Match(SYN|ACK) || syn.Match(ACK) || notSyn.Match(SYN|ACK) {
		t.Error("Match")
	}
}

func FuzzParseSequence(f *testing.F) {
	for _, s := range []string{"7000,8000:udp", "tcp/1 udp/2", "7000,", "0", " 1 : tcp , 2", "65536"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		steps, err := ParseSequence(text)
		if err != nil {
			if steps != nil {
				t.Fatal("steps and an error")
			}
			return
		}
		if err := validateSteps(steps); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		again, err := ParseSequence(FormatSequence(steps))
		if err != nil || !slices.Equal(again, steps) {
			t.Fatalf("%q: %v, %v", text, again, err)
		}
		for _, sep := range []string{",", " ,\t", ", "} {
			var items []string
			for _, s := range steps {
				items = append(items, fmt.Sprintf("%d:%v", s.Port, s.Protocol))
			}
			again, err = ParseSequence(strings.Join(items, sep))
			if err != nil || !slices.Equal(again, steps) {
				t.Fatalf("%q: %v, %v", text, again, err)
			}
		}
	})
}

func FuzzParseFlags(f *testing.F) {
	f.Add("syn,!ack")
	f.Fuzz(func(t *testing.T, text string) {
		flags, err := ParseFlags(text)
		if err != nil {
			return
		}
		if err := flags.validate(); err != nil || flags.IsZero() {
			t.Fatalf("%q: %+v %v", text, flags, err)
		}
	})
}
