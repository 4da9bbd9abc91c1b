// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/rand"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Labels and sizes of libknock's TCP frame v1 (libknock.md section 2).
const (
	v1HintLabel = "hint"
	v1KeyInfo   = "libknock aead v1"

	v1Version   = 0x01
	v1NonceLen  = 16
	v1NonceAt   = 3
	v1HintAt    = v1NonceAt + v1NonceLen
	v1LengthAt  = v1HintAt + knockcore.HintLen
	v1HeaderLen = v1LengthAt + 2

	// v1MaxFrame is the sender's limit, and the receiver's unless it is told
	// otherwise.
	v1MaxFrame = 1024
)

// Both versions share the ID hash and the flags.
const (
	tcpIDLabel   = "client-id"
	tcpIDHashLen = 16
	tcpFlagProof = 0x01
)

// TCPFrame is the content of a TCP authentication frame of either version: the
// first bytes that a client sends on a fresh connection (libknock.md sections 2
// and 3).
type TCPFrame struct {
	// Method is the version: MethodFrameV1 or MethodEnvelopeV2.
	Method knockcore.Method
	// Port is the protected port, 0 to 65535. It need not be the port that the
	// connection goes to.
	Port uint16
	// Time is when the frame was made, in Unix milliseconds.
	Time int64
	// WantProof asks the server to prove that it knows the secret (flag bit 0).
	WantProof bool
	// KnockMethod is libknock's field "method": free text of at most 255 bytes,
	// usually empty. It decides nothing.
	KnockMethod string
	// Session is the ID of the knock session, at most 255 bytes; nil if there is
	// none.
	Session []byte
	// Extensions is opaque, by convention a list for ParseTLVs: in v1 at most 949
	// bytes together with KnockMethod and Session, in v2 what the bucket leaves.
	Extensions []byte

	// HintNone leaves the route hint out (v2 only).
	HintNone bool
	// Bucket is the frame's size on the wire (v2 only): one of Buckets. Open sets
	// it; for Seal 0 means one drawn uniformly from those that fit.
	Bucket int
	// ZeroPadding makes Seal pad with zeros instead of random bytes (v2 only).
	ZeroPadding bool
	// Padding is used by Seal as it stands if it is not nil; it must have exactly
	// the length that fills the bucket (v2 only). Open leaves it alone.
	Padding []byte

	// Nonce is v1's nonce (16 bytes) or v2's prefix_random (24 bytes). Seal draws
	// one if it is nil, and again if it is the one that Seal drew before: sealing
	// twice never uses a nonce twice.
	Nonce []byte
	// Hint is v1's key hint or v2's route hint, zeros without one. Seal and Open
	// set it.
	Hint [knockcore.HintLen]byte
	// Size is the frame's length on the wire in bytes. Seal and Open set it.
	Size int

	drawn *byte // &Nonce[0] if Seal drew it
}

// Flags returns the flag byte: bit 0 is WantProof, the others are 0.
func (f *TCPFrame) Flags() byte {
	if f.WantProof {
		return tcpFlagProof
	}
	return 0
}

// ReplayNonce returns the bytes that make the frame the same frame: what
// knockcore.NewReplayKey takes for the class ReplayTCP (libknock.md section 10).
func (f *TCPFrame) ReplayNonce() []byte { return f.Nonce }

// Seal encrypts the frame for the client of the credential and returns its
// bytes. It sets Nonce, Hint and Size. It needs the credential's client ID and
// its secret, of at least knockcore.MinSecretLen bytes. Errors are of reason
// ReasonMalformed (something is too long or of a wrong length) or
// ReasonUnsupported (Method or Bucket).
func (f *TCPFrame) Seal(cred *knockcore.Credential) ([]byte, error) {
	switch {
	case cred.Client == nil || cred.Client.ID == "":
		return nil, tcpRefuse(knockcore.ReasonMalformed, "a frame needs a client ID")
	case len(f.KnockMethod) > 255:
		return nil, tcpRefuse(knockcore.ReasonMalformed, "method has %d bytes, at most 255 fit", len(f.KnockMethod))
	case len(f.Session) > 255:
		return nil, tcpRefuse(knockcore.ReasonMalformed, "session has %d bytes, at most 255 fit", len(f.Session))
	}
	if err := cred.Secret.Strong(); err != nil {
		return nil, tcpRefuse(knockcore.ReasonMalformed, "%v", err)
	}
	switch f.Method {
	case knockcore.MethodFrameV1:
		return f.sealV1(cred)
	case knockcore.MethodEnvelopeV2:
		return f.sealV2(cred)
	default:
		return nil, tcpRefuse(knockcore.ReasonUnsupported, "%q is no method of a TCP frame", f.Method)
	}
}

func (f *TCPFrame) sealV1(cred *knockcore.Credential) ([]byte, error) {
	sealed := tcpIDHashLen + 8 + 2 + f.fieldsLen() + chacha20poly1305.Overhead
	if size := v1HeaderLen + sealed; size > v1MaxFrame {
		return nil, tcpRefuse(knockcore.ReasonMalformed,
			"frame has %d bytes, at most %d are allowed: shorten session or extensions by %d", size, v1MaxFrame, size-v1MaxFrame)
	}
	if err := f.prepareNonce(v1NonceLen, func([]byte) bool { return true }); err != nil {
		return nil, err
	}
	f.setHint(cred, v1HintLabel)
	f.Size = v1HeaderLen + sealed

	frame := make([]byte, 0, f.Size)
	frame = append(frame, v1Version, f.Flags(), 0)
	frame = append(frame, f.Nonce...)
	frame = append(frame, f.Hint[:]...)
	frame = binary.BigEndian.AppendUint16(frame, uint16(sealed))

	plain := make([]byte, 0, sealed)
	plain = append(plain, tcpIDHash(cred)...)
	plain = binary.BigEndian.AppendUint64(plain, uint64(f.Time))
	plain = binary.BigEndian.AppendUint16(plain, f.Port)
	plain = f.appendFields(plain)
	return tcpSeal(frame, v1Key(cred, frame), frame[v1NonceAt:v1LengthAt], plain, frame), nil
}

// openV1 opens a whole v1 frame with one credential: nil if it does not fit. The
// header must have been checked. The sealed port is left for the caller to check.
func openV1(cred *knockcore.Credential, frame []byte) *TCPFrame {
	header := frame[:v1HeaderLen]
	plain, ok := tcpOpen(v1Key(cred, header), header[v1NonceAt:v1LengthAt], frame[v1HeaderLen:], header)
	if !ok {
		return nil
	}
	f := &TCPFrame{Method: knockcore.MethodFrameV1, WantProof: header[1]&tcpFlagProof != 0, Size: len(frame)}
	idHash, ok := f.parseV1(plain)
	if !ok || !tcpIDFits(cred, idHash) {
		return nil
	}
	f.Nonce = append(f.Nonce, header[v1NonceAt:v1HintAt]...)
	copy(f.Hint[:], header[v1HintAt:])
	return f
}

// parseV1 reads the decrypted part of a v1 frame. What it keeps shares memory
// with plain.
func (f *TCPFrame) parseV1(plain []byte) (idHash []byte, ok bool) {
	r := reader{b: plain}
	idHash = r.bytes(tcpIDHashLen)
	f.Time = r.i64()
	f.Port = r.u16()
	f.readFields(&r)
	return idHash, r.done()
}

// checkV1Header finds what is wrong with the 29 bytes of a v1 header and returns
// the length of the whole frame.
func checkV1Header(header []byte, maxFrame int) (size int, reason knockcore.Reason) {
	size = v1HeaderLen + int(binary.BigEndian.Uint16(header[v1LengthAt:]))
	switch {
	case header[0] != v1Version, header[1]&^tcpFlagProof != 0:
		return 0, knockcore.ReasonUnsupported
	case header[2] != 0, size == v1HeaderLen, size > maxFrame:
		return 0, knockcore.ReasonMalformed
	default:
		return size, knockcore.ReasonNone
	}
}

func v1Key(cred *knockcore.Credential, header []byte) []byte {
	return tcpKey(cred, header[v1NonceAt:v1HintAt], v1KeyInfo+string(header[v1HintAt:v1LengthAt]))
}

// fieldsLen is the encoded length of the three fields that both versions share.
func (f *TCPFrame) fieldsLen() int {
	return 1 + len(f.KnockMethod) + 1 + len(f.Session) + 2 + len(f.Extensions)
}

func (f *TCPFrame) appendFields(b []byte) []byte {
	b = append(b, byte(len(f.KnockMethod)))
	b = append(b, f.KnockMethod...)
	b = append(b, byte(len(f.Session)))
	b = append(b, f.Session...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(f.Extensions)))
	return append(b, f.Extensions...)
}

// readFields sets empty fields to nil.
func (f *TCPFrame) readFields(r *reader) {
	f.KnockMethod = string(r.vec8())
	if session := r.vec8(); len(session) > 0 {
		f.Session = session
	}
	if extensions := r.vec16(); len(extensions) > 0 {
		f.Extensions = extensions
	}
}

// prepareNonce checks the nonce that the caller set, or draws until one is fit.
func (f *TCPFrame) prepareNonce(n int, fit func([]byte) bool) error {
	if f.Nonce != nil && (len(f.Nonce) != n || f.drawn != &f.Nonce[0]) {
		if len(f.Nonce) != n {
			return tcpRefuse(knockcore.ReasonMalformed, "nonce has %d bytes, %v needs %d", len(f.Nonce), f.Method, n)
		}
		return nil
	}
	f.Nonce = make([]byte, n)
	f.drawn = &f.Nonce[0]
	for {
		_, _ = rand.Read(f.Nonce) // never fails: see crypto/rand
		if fit(f.Nonce) {
			return nil
		}
	}
}

func (f *TCPFrame) setHint(cred *knockcore.Credential, label string) {
	sum := tcpHMAC(cred, appendHintMessage(nil, label, f.Nonce, f.Port))
	copy(f.Hint[:], sum[:])
}

// appendHintMessage appends what a hint is the HMAC of.
func appendHintMessage(b []byte, label string, nonce []byte, port uint16) []byte {
	b = append(b, label...)
	b = append(b, nonce...)
	return binary.BigEndian.AppendUint16(b, port)
}
