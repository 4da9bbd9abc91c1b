// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/rand"
	"encoding/binary"
)

// appendPayload appends the plaintext of the frame (libknock.md section 6.1,
// second table). d must be valid.
func (d *Datagram) appendPayload(dst []byte, idHash [datagramIDHashLen]byte) ([]byte, error) {
	kind := byte(datagramSingle)
	if d.Sequence {
		kind = datagramPart
	}
	dst = append(dst, kind)
	dst = append(dst, idHash[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(d.Time))
	dst = appendVec8(dst, []byte(d.Method.String()))
	dst = binary.BigEndian.AppendUint16(dst, d.Port)
	dst = appendVec8(dst, d.Session)
	if d.Sequence {
		dst = appendVec8(dst, d.SequenceID[:])
		dst = append(dst, d.Index, d.Total)
	} else {
		dst = append(dst, 0, 0, 0)
	}
	random := d.ClientRandom
	if random == nil {
		random = make([]byte, 16)
		_, _ = rand.Read(random) // never fails: see crypto/rand
	}
	dst = appendVec8(dst, random)
	extensions, err := AppendTLVs(nil, d.Extensions)
	if err != nil {
		return nil, err
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(extensions)))
	return append(dst, extensions...), nil
}

// appendVec8 appends a length of one byte and v, which has at most 255 bytes.
func appendVec8(dst, v []byte) []byte { return append(append(dst, byte(len(v))), v...) }

// datagramPayload is a parsed plaintext whose fields have not been judged yet.
// Its slices share memory with the plaintext.
type datagramPayload struct {
	kind       byte
	idHash     []byte // datagramIDHashLen bytes
	time       int64
	method     []byte // not empty
	port       uint16 // not 0
	session    []byte
	sequenceID []byte
	index      uint8
	total      uint8
	random     []byte
	extensions []TLV
}

// parseDatagram splits a plaintext. It reports false for what libknock calls a
// parse error: fields that do not fit, anything left over, an empty method,
// port 0, or extensions that are no TLV list.
func parseDatagram(plain []byte) (p datagramPayload, ok bool) {
	r := reader{b: plain}
	p.kind = r.u8()
	p.idHash = r.bytes(datagramIDHashLen)
	p.time = r.i64()
	p.method = r.vec8()
	p.port = r.u16()
	p.session = r.vec8()
	p.sequenceID = r.vec8()
	p.index = r.u8()
	p.total = r.u8()
	p.random = r.vec8()
	extensions := r.vec16()
	if !r.done() || len(p.method) == 0 || p.port == 0 {
		return datagramPayload{}, false
	}
	if len(extensions) > 0 {
		var err error
		if p.extensions, err = ParseTLVs(extensions); err != nil {
			return datagramPayload{}, false
		}
	}
	return p, true
}
