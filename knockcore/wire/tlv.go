// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"math"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// TLV is one element of libknock's lists of extensions (libknock.md section 9).
// libknock defines no types.
type TLV struct {
	Type uint16
	// Value has 0 to 65531 bytes.
	Value []byte
}

const tlvHeaderLen = 4

// AppendTLVs appends the encoded list to dst, each element as type and length
// (big endian, 2 bytes each) and value, in the given order. A list of more than
// 65535 bytes is an error of reason ReasonMalformed, with dst returned as it was.
func AppendTLVs(dst []byte, list []TLV) ([]byte, error) {
	total := 0
	for _, t := range list {
		total += tlvHeaderLen + len(t.Value)
		if total > math.MaxUint16 {
			return dst, tcpRefuse(knockcore.ReasonMalformed, "list of extensions has more than %d bytes", math.MaxUint16)
		}
	}
	for _, t := range list {
		dst = binary.BigEndian.AppendUint16(dst, t.Type)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(t.Value)))
		dst = append(dst, t.Value...)
	}
	return dst, nil
}

// ParseTLVs reads an encoded list: elements in order, duplicates kept, nil for
// no bytes. The values share memory with b. Bytes left over, a length past the
// end, and more than 65535 bytes are errors of reason ReasonMalformed.
func ParseTLVs(b []byte) ([]TLV, error) {
	if len(b) > math.MaxUint16 {
		return nil, tcpRefuse(knockcore.ReasonMalformed, "list of extensions has more than %d bytes", math.MaxUint16)
	}
	var list []TLV
	for r := (reader{b: b}); len(r.b) > 0; {
		t := TLV{Type: r.u16(), Value: r.vec16()}
		if r.bad {
			return nil, tcpRefuse(knockcore.ReasonMalformed, "list of extensions breaks off in element %d", len(list)+1)
		}
		list = append(list, t)
	}
	return list, nil
}
