// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"

	"golang.org/x/net/bpf"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// maxProgram is how many instructions the kernel takes (BPF_MAXINSNS).
const maxProgram = 4096

// Where fields stand in headers, in bytes.
const (
	ip4Fragment    = 6
	ip4Protocol    = 9
	ip6NextHeader  = 6
	portAt         = 2
	tcpFlagsAt     = 13
	packetIsToHost = 0 // PACKET_HOST of linux/if_packet.h
	anyFragment    = 0x3fff
)

// program makes the kernel's filter for packets without link layer's header: those
// to this host's link-layer address that came in by one of the interfaces (nil
// means by any but those of except) and pass the filter.
func program(f Filter, v6 bool, interfaces, except []uint32) ([]bpf.RawInstruction, error) {
	b := &builder{}
	b.add(bpf.LoadExtension{Num: bpf.ExtType})
	b.require(bpf.JumpEqual, packetIsToHost)
	b.add(bpf.LoadExtension{Num: bpf.ExtInterfaceIndex})
	for _, index := range except {
		b.require(bpf.JumpNotEqual, index)
	}
	if interfaces != nil {
		b.oneOf(interfaces)
	}
	if v6 {
		b.headers6()
	} else {
		b.headers4()
	}
	// Now M[0] is the protocol and X is where its header begins.
	for _, t := range f {
		b.test(t)
	}
	b.add(bpf.RetConstant{Val: 0})
	if len(b.list) > maxProgram {
		return nil, fmt.Errorf("watching %d ranges of ports takes %d instructions, the kernel takes %d: watch fewer ports, or wider ranges", len(f), len(b.list), maxProgram)
	}
	return bpf.Assemble(b.list)
}

// builder collects instructions.
type builder struct{ list []bpf.Instruction }

func (b *builder) add(list ...bpf.Instruction) { b.list = append(b.list, list...) }

// require drops the packet unless the condition holds.
func (b *builder) require(cond bpf.JumpTest, value uint32) {
	b.add(bpf.JumpIf{Cond: cond, Val: value, SkipTrue: 1}, bpf.RetConstant{Val: 0})
}

// oneOf drops the packet unless A is one of the values.
func (b *builder) oneOf(values []uint32) {
	for i, v := range values {
		b.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: 1}, bpf.Jump{Skip: uint32(2*(len(values)-1-i) + 1)})
	}
	b.add(bpf.RetConstant{Val: 0})
}

func (b *builder) headers4() {
	b.add(
		bpf.LoadAbsolute{Off: ip4Fragment, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: anyFragment, SkipFalse: 1},
		bpf.RetConstant{Val: 0},
		bpf.LoadAbsolute{Off: ip4Protocol, Size: 1},
		bpf.StoreScratch{Src: bpf.RegA, N: 0},
		bpf.LoadMemShift{Off: 0},
	)
}

// headers6 walks the extension headers that Decoder knows, too.
func (b *builder) headers6() {
	b.add(
		bpf.LoadAbsolute{Off: ip6NextHeader, Size: 1},
		bpf.StoreScratch{Src: bpf.RegA, N: 0},
		bpf.LoadConstant{Dst: bpf.RegX, Val: ip6HeaderLen},
	)
	const hopByHop, destination = 0, 60
	for range MaxExtensions {
		b.add(
			bpf.LoadScratch{Dst: bpf.RegA, N: 0},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: hopByHop, SkipTrue: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: destination, SkipTrue: 7},
			bpf.LoadIndirect{Off: 0, Size: 1},
			bpf.StoreScratch{Src: bpf.RegA, N: 0},
			bpf.LoadIndirect{Off: 1, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 3},
			bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 8},
			bpf.ALUOpX{Op: bpf.ALUOpAdd},
			bpf.TAX{},
		)
	}
}

// test lets the packet through if it passes.
func (b *builder) test(t FilterTest) {
	rest := []bpf.Instruction{bpf.RetConstant{Val: snapLen}}
	prepend := func(list ...bpf.Instruction) { rest = append(list, rest...) }
	skip := func() uint8 { return uint8(len(rest)) }
	if t.Ports.Protocol == knockcore.TCP && t.Mask != 0 {
		prepend(bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(t.Want), SkipTrue: skip()})
		prepend(bpf.LoadIndirect{Off: tcpFlagsAt, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(t.Mask)})
	}
	prepend(bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(t.Ports.High), SkipTrue: skip()})
	prepend(bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(t.Ports.Low), SkipTrue: skip()})
	prepend(bpf.LoadIndirect{Off: portAt, Size: 2})
	prepend(bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(t.Ports.Protocol), SkipTrue: skip()})
	prepend(bpf.LoadScratch{Dst: bpf.RegA, N: 0})
	b.add(rest...)
}
