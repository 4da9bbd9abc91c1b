// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import "encoding/binary"

// reader takes big-endian fields off the front of b. The first field that does
// not fit sets bad; from then on every method returns zero values and takes
// nothing. Whoever parses checks bad once, at the end, and len(b) for leftovers.
// Slices that it returns share memory with b and have no spare capacity.
type reader struct {
	b   []byte
	bad bool
}

// bytes takes n bytes, nil if there are not so many.
func (r *reader) bytes(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// u8 takes one byte.
func (r *reader) u8() byte {
	if v := r.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

// u16 takes an unsigned number of two bytes.
func (r *reader) u16() uint16 {
	if v := r.bytes(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

// i64 takes a signed number of eight bytes.
func (r *reader) i64() int64 {
	if v := r.bytes(8); v != nil {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

// vec8 takes a length of one byte and so many bytes.
func (r *reader) vec8() []byte { return r.bytes(int(r.u8())) }

// vec16 takes a length of two bytes and so many bytes.
func (r *reader) vec16() []byte { return r.bytes(int(r.u16())) }

// done reports whether every field fitted and nothing is left.
func (r *reader) done() bool { return !r.bad && len(r.b) == 0 }
