// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/rand"
	"encoding/binary"
	"math/big"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Labels and sizes of libknock's TCP envelope v2 (libknock.md section 3).
const (
	v2HintLabel = "libknock tcp-auth hint v2"
	v2KeyInfo   = "libknock tcp-auth envelope v2"
	v2AADSuffix = "tcp-auth-envelope-v2"

	v2InnerVersion = 0x02
	v2PrefixLen    = 24
	v2HintEnd      = v2PrefixLen + knockcore.HintLen

	// v2FixedLen is what every plaintext has: version, flags, time, ID hash, port
	// and padding_len.
	v2FixedLen = 1 + 1 + 8 + tcpIDHashLen + 2 + 2
)

var v2Buckets = [...]int{128, 192, 256, 384, 512}

// Buckets returns the sizes in bytes that an envelope v2 can have on the wire,
// ascending: 128, 192, 256, 384 and 512. The slice is the caller's.
func Buckets() []int { return slices.Clone(v2Buckets[:]) }

// v2HeadLen is where the sealed part begins.
func v2HeadLen(hintNone bool) int {
	if hintNone {
		return v2PrefixLen
	}
	return v2HintEnd
}

// v2Room is how many bytes of padding an envelope without any fields would have,
// negative if the fields do not fit.
func (f *TCPFrame) v2Room(bucket int) int {
	return bucket - v2HeadLen(f.HintNone) - v2FixedLen - f.fieldsLen() - chacha20poly1305.Overhead
}

// v2Bucket checks the bucket that the caller chose, or draws one of those that
// fit.
func (f *TCPFrame) v2Bucket() (int, error) {
	largest := v2Buckets[len(v2Buckets)-1]
	switch {
	case f.Bucket != 0 && !slices.Contains(v2Buckets[:], f.Bucket):
		return 0, tcpRefuse(knockcore.ReasonUnsupported, "no bucket has %d bytes; expect one of %v", f.Bucket, v2Buckets)
	case f.Bucket != 0 && f.v2Room(f.Bucket) < 0:
		return 0, tcpRefuse(knockcore.ReasonMalformed, "method, session and extensions are %d bytes too long for bucket %d", -f.v2Room(f.Bucket), f.Bucket)
	case f.Bucket != 0:
		return f.Bucket, nil
	case f.v2Room(largest) < 0:
		return 0, tcpRefuse(knockcore.ReasonMalformed, "method, session and extensions are %d bytes too long for the greatest bucket, %d", -f.v2Room(largest), largest)
	}
	first := slices.IndexFunc(v2Buckets[:], func(size int) bool { return f.v2Room(size) >= 0 })
	n, err := rand.Int(rand.Reader, big.NewInt(int64(len(v2Buckets)-first)))
	if err != nil { // never: see crypto/rand
		return 0, err
	}
	return v2Buckets[first+int(n.Int64())], nil
}

func (f *TCPFrame) sealV2(cred *knockcore.Credential) ([]byte, error) {
	bucket, err := f.v2Bucket()
	if err != nil {
		return nil, err
	}
	padding := f.v2Room(bucket)
	if f.Padding != nil && len(f.Padding) != padding {
		return nil, tcpRefuse(knockcore.ReasonMalformed, "padding has %d bytes, bucket %d needs %d", len(f.Padding), bucket, padding)
	}
	if err := f.prepareNonce(v2PrefixLen, v2PrefixFit); err != nil {
		return nil, err
	}
	f.Hint = [knockcore.HintLen]byte{}
	if !f.HintNone {
		f.setHint(cred, v2HintLabel)
	}
	f.Size = bucket

	head := make([]byte, 0, bucket)
	head = append(head, f.Nonce...)
	if !f.HintNone {
		head = append(head, f.Hint[:]...)
	}
	plain := make([]byte, 0, bucket)
	plain = append(plain, v2InnerVersion, f.Flags())
	plain = binary.BigEndian.AppendUint64(plain, uint64(f.Time))
	plain = append(plain, tcpIDHash(cred)...)
	plain = binary.BigEndian.AppendUint16(plain, f.Port)
	plain = f.appendFields(plain)
	plain = binary.BigEndian.AppendUint16(plain, uint16(padding))
	if f.Padding != nil {
		plain = append(plain, f.Padding...)
	} else {
		plain = append(plain, make([]byte, padding)...)
		if !f.ZeroPadding {
			_, _ = rand.Read(plain[len(plain)-padding:]) // never fails: see crypto/rand
		}
	}
	return tcpSeal(head, tcpKey(cred, f.Nonce, v2KeyInfo), f.Nonce, plain, v2AAD(head, bucket, f.Port)), nil
}

// v2PrefixFit reports whether a receiver can take the prefix for what it is: it
// must not begin like a v1 frame, nor as foreign traffic does.
func v2PrefixFit(prefix []byte) bool {
	foreign, _ := beginsForeign(prefix)
	return prefix[0] != v1Version && !foreign
}

// openV2 opens a whole envelope, of bucket size, with one credential: nil if it
// does not fit. The sealed port is left for the caller to check.
func openV2(cred *knockcore.Credential, port uint16, hintNone bool, frame []byte) *TCPFrame {
	prefix, head := frame[:v2PrefixLen], frame[:v2HeadLen(hintNone)]
	plain, ok := tcpOpen(tcpKey(cred, prefix, v2KeyInfo), prefix, frame[len(head):], v2AAD(head, len(frame), port))
	if !ok {
		return nil
	}
	f := &TCPFrame{Method: knockcore.MethodEnvelopeV2, HintNone: hintNone, Bucket: len(frame), Size: len(frame)}
	idHash, ok := f.parseV2(plain)
	if !ok || !tcpIDFits(cred, idHash) {
		return nil
	}
	f.Nonce = slices.Clone(prefix)
	copy(f.Hint[:], head[v2PrefixLen:])
	return f
}

// parseV2 reads the decrypted part of an envelope. What it keeps shares memory
// with plain; the padding may hold anything.
func (f *TCPFrame) parseV2(plain []byte) (idHash []byte, ok bool) {
	r := reader{b: plain}
	version, flags := r.u8(), r.u8()
	f.WantProof = flags&tcpFlagProof != 0
	f.Time = r.i64()
	idHash = r.bytes(tcpIDHashLen)
	f.Port = r.u16()
	f.readFields(&r)
	r.vec16()
	return idHash, r.done() && version == v2InnerVersion && flags&^tcpFlagProof == 0
}

func v2AAD(head []byte, bucket int, port uint16) []byte {
	aad := make([]byte, 0, len(head)+4+len(v2AADSuffix))
	aad = append(aad, head...)
	aad = binary.BigEndian.AppendUint16(aad, uint16(bucket))
	aad = binary.BigEndian.AppendUint16(aad, port)
	return append(aad, v2AADSuffix...)
}
