// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// From linux/inet_diag.h.
const (
	diagReqBytecode = 1 // the attribute
	diagJump        = 1 // INET_DIAG_BC_JMP
	diagDest        = 8 // INET_DIAG_BC_D_COND: the remote address
	diagOpSize      = 4 // struct inet_diag_bc_op
	diagHostSize    = 8 // struct inet_diag_hostcond without address
)

// maxConditions bounds the program, whose jumps are 16 bits wide.
const maxConditions = 256

// remoteFilter is an attribute by which the kernel lists only sockets whose remote
// address is in one of the prefixes; IPv4 ones also match sockets of IPv6 that have
// them mapped. It is nil if they are too many.
//
// The program is a list of conditions. One that holds goes on with the jump behind
// it, to the end, which accepts; one that does not, behind that jump. The last one
// jumps beyond the end instead, which refuses.
func remoteFilter(prefixes []netip.Prefix) []byte {
	if len(prefixes) == 0 || len(prefixes) > maxConditions {
		return nil
	}
	total := -diagOpSize // the last condition has no jump
	for _, p := range prefixes {
		total += conditionSize(p) + diagOpSize
	}
	b := make([]byte, 4, 4+total)
	binary.NativeEndian.PutUint16(b, uint16(4+total))
	binary.NativeEndian.PutUint16(b[2:], diagReqBytecode)
	op := func(code, yes, no int) {
		b = binary.NativeEndian.AppendUint16(append(b, byte(code), byte(yes)), uint16(no))
	}
	for _, p := range prefixes {
		size, family := conditionSize(p), byte(unix.AF_INET)
		if p.Addr().Is6() {
			family = unix.AF_INET6
		}
		op(diagDest, size, size+diagOpSize)
		b = append(b, family, byte(p.Bits()), 0, 0)
		b = append(b, 0xff, 0xff, 0xff, 0xff) // any port
		b = append(b, p.Addr().AsSlice()...)
		if left := 4 + total - len(b); left > 0 {
			op(diagJump, diagOpSize, left)
		}
	}
	return b
}

func conditionSize(p netip.Prefix) int { return diagOpSize + diagHostSize + p.Addr().BitLen()/8 }
