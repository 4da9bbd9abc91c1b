// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// The layout of libknock's UDP knock frame (libknock.md section 6.1).
const (
	// DatagramHeaderLen is the length in bytes of the clear header: nonce, key
	// hint, length, flags, reserved.
	DatagramHeaderLen = 28
	// DatagramNonceLen is the length in bytes of the nonce that leads the header.
	DatagramNonceLen = 16
	// DefaultMaxDatagram is the greatest frame in bytes that libknock makes and
	// takes unless configured otherwise.
	DefaultMaxDatagram = 1024
	// MinSessionLen is the least number of bytes in a session ID inside a
	// datagram, if there is one.
	MinSessionLen = 16
	// MinUDPSequence and MaxUDPSequence bound the number of parts of a udp-seq or
	// udp-passive-seq knock.
	MinUDPSequence, MaxUDPSequence = 2, 8
)

const (
	datagramHintLabel = "libknock udp-knock hint v1"
	datagramIDLabel   = "libknock client-id v1"
	datagramKeyInfo   = "libknock udp-knock frame v1"
	datagramVersion   = 1 // only in the additional data, nowhere on the wire

	datagramLengthAt   = 24
	datagramFlagsAt    = 26
	datagramReservedAt = 27
	datagramIDHashLen  = 16

	datagramSequence   = 1 << 0 // flags
	datagramSession    = 1 << 1
	datagramExtensions = 1 << 2
	datagramFlags      = datagramSequence | datagramSession | datagramExtensions

	datagramSingle = 1 // frame types
	datagramPart   = 2

	datagramLimit = 1<<16 - 1 // of SealMax
)

// Datagram is the content of one libknock UDP knock (libknock.md section 6.1).
// On the wire, big endian:
//
//	0          16       24         26      27   28
//	| nonce 16 | hint 8 | length 2 | flags | 00 | sealed: length bytes, to the end
//
//	sealed: | type | ID hash 16 | time 8 | method 1+n | port 2 | session 1+n
//	        | sequence ID 1+n | index | total | client random 1+n | extensions 2+n | tag 16
//
// What is sealed is ChaCha20-Poly1305 under a key derived from secret and nonce,
// with the header, a version and the protected port as additional data.
type Datagram struct {
	// Method is the method string inside the frame: MethodUDP, MethodUDPSeq,
	// MethodUDPPassive or MethodUDPPassiveSeq.
	Method knockcore.Method
	// Port is the protected port, 1 to 65535. It is not the port that the
	// datagram travels to.
	Port uint16
	// Time is the sender's clock in Unix milliseconds. Open does not check it.
	Time int64
	// Session is the session ID: none, or 16 to 255 bytes.
	Session []byte
	// Sequence says that this is one part of a sequence (frame type 2). The next
	// three fields mean something only then; Open leaves them zero otherwise.
	Sequence bool
	// SequenceID is common to all parts of one knock: 16 random bytes.
	SequenceID [16]byte
	// Index counts from 0 and is below Total, which is 2 to 8.
	Index, Total uint8
	// ClientRandom is 0 to 255 bytes that nobody uses. Seal draws 16 if it is nil.
	ClientRandom []byte
	// Extensions are carried in order, duplicates included; no types are defined.
	Extensions []TLV
	// Nonce identifies the frame to the replay guard: 16 bytes. Seal draws them if
	// it is nil.
	Nonce []byte
}

// NeedsSequence reports whether the knock counts only as part of a sequence, so
// that it must go through [UDPSequences.Add] before it opens anything. The
// method decides, not d.Sequence: libknock takes frames of type 1 with a
// sequence method for well-formed and leaves it to its tracker to refuse them.
func (d *Datagram) NeedsSequence() bool { return sequenceDatagram(d.Method) }

func sequenceDatagram(m knockcore.Method) bool {
	return m == knockcore.MethodUDPSeq || m == knockcore.MethodUDPPassiveSeq
}

// datagramMethod finds the method of a method string, MethodNone for one that
// datagrams cannot have. Strings are compared exactly.
func datagramMethod(name []byte) knockcore.Method {
	for _, m := range [...]knockcore.Method{
		knockcore.MethodUDP, knockcore.MethodUDPSeq,
		knockcore.MethodUDPPassive, knockcore.MethodUDPPassiveSeq,
	} {
		if string(name) == m.String() {
			return m
		}
	}
	return knockcore.MethodNone
}

// Seal makes the frame of d, of at most DefaultMaxDatagram bytes, for the client
// of the credential. It needs the credential's client ID and its secret, of at
// least knockcore.MinSecretLen bytes, and does not change d. Errors are of reason
// ReasonMalformed.
func (d *Datagram) Seal(cred *knockcore.Credential) ([]byte, error) { return d.SealMax(cred, 0) }

// SealMax is Seal with another limit in bytes, up to 65535, for receivers whose
// own limit was raised; 0 means DefaultMaxDatagram.
func (d *Datagram) SealMax(cred *knockcore.Credential, limit int) ([]byte, error) {
	if limit <= 0 {
		limit = DefaultMaxDatagram
	}
	if err := d.validate(cred); err != nil {
		return nil, err
	}
	mac := knockcore.NewMAC(cred.Secret.Bytes()) // a credential made by hand has none
	s := knockcore.GetMACScratch()
	defer s.Free()
	plain, err := d.appendPayload(nil, datagramIDHash(&mac, s, cred.Client.ID))
	if err != nil {
		return nil, err
	}
	length := DatagramHeaderLen + len(plain) + chacha20poly1305.Overhead
	if limit = min(limit, datagramLimit); length > limit {
		return nil, tcpRefuse(knockcore.ReasonMalformed,
			"datagram has %d bytes, at most %d are allowed: shorten session or extensions by %d", length, limit, length-limit)
	}

	frame := make([]byte, DatagramHeaderLen, length)
	nonce := frame[:DatagramNonceLen]
	if d.Nonce == nil {
		_, _ = rand.Read(nonce) // never fails: see crypto/rand
	} else {
		copy(nonce, d.Nonce)
	}
	s.Buf = appendHintMessage(s.Buf[:0], datagramHintLabel, nonce, d.Port)
	copy(frame[DatagramNonceLen:], mac.Sum(s, s.Buf)[:knockcore.HintLen])
	binary.BigEndian.PutUint16(frame[datagramLengthAt:], uint16(length-DatagramHeaderLen))
	frame[datagramFlagsAt] = d.flags()
	aead := datagramAEAD(s, cred, nonce)
	s.Buf = appendDatagramAAD(s.Buf[:0], frame, d.Port)
	return aead.Seal(frame, nonce[:chacha20poly1305.NonceSize], plain, s.Buf), nil
}

// validate reports what a receiver would refuse.
func (d *Datagram) validate(cred *knockcore.Credential) error {
	problem := ""
	switch {
	case cred.Client == nil || cred.Client.ID == "":
		problem = "a datagram needs a client ID"
	case cred.Secret.Strong() != nil:
		problem = cred.Secret.Strong().Error()
	case datagramMethod([]byte(d.Method.String())) == knockcore.MethodNone:
		problem = "a datagram's method is udp, udp-seq, udp-passive or udp-passive-seq"
	case d.Port == 0:
		problem = "the protected port is 1 to 65535"
	case d.Nonce != nil && len(d.Nonce) != DatagramNonceLen:
		problem = "a datagram's nonce has 16 bytes"
	case len(d.ClientRandom) > 255:
		problem = "the client random has at most 255 bytes"
	case !validDatagramSession(d.Session):
		problem = "a datagram's session ID has 16 to 255 bytes, or none"
	case d.Sequence != d.NeedsSequence():
		problem = "udp-seq and udp-passive-seq are sent as parts of a sequence, udp and udp-passive alone"
	case d.Sequence && !validUDPPart(d.Index, d.Total):
		problem = "a sequence has 2 to 8 parts, numbered from 0"
	default:
		return nil
	}
	return &knockcore.Refusal{Reason: knockcore.ReasonMalformed, Detail: problem}
}

func validDatagramSession(id []byte) bool {
	return len(id) == 0 || len(id) >= MinSessionLen && len(id) <= 255
}

func validUDPPart(index, total uint8) bool {
	return total >= MinUDPSequence && total <= MaxUDPSequence && index < total
}

func (d *Datagram) flags() (flags byte) {
	if d.Sequence {
		flags |= datagramSequence
	}
	if len(d.Session) > 0 {
		flags |= datagramSession
	}
	if len(d.Extensions) > 0 {
		flags |= datagramExtensions
	}
	return flags
}

// datagramIDHash is the hash of the client's ID inside datagrams; TCP frames
// use another label.
func datagramIDHash(mac *knockcore.MAC, s *knockcore.MACScratch, id string) (hash [datagramIDHashLen]byte) {
	s.Buf = append(s.Buf[:0], datagramIDLabel...)
	s.Buf = append(s.Buf, id...)
	copy(hash[:], mac.Sum(s, s.Buf)[:])
	return hash
}

// datagramAEAD derives the AEAD of one frame: every nonce has its own key.
func datagramAEAD(s *knockcore.MACScratch, cred *knockcore.Credential, nonce []byte) cipher.AEAD {
	aead, err := chacha20poly1305.New(s.HKDF(cred.Secret.Bytes(), nonce, datagramKeyInfo)[:])
	if err != nil { // only for keys of a wrong length
		panic("wire: ChaCha20-Poly1305: " + err.Error())
	}
	return aead
}

// appendDatagramAAD appends the header, the version that appears nowhere else, and
// the protected port.
func appendDatagramAAD(b, frame []byte, port uint16) []byte {
	b = append(b, frame[:DatagramHeaderLen]...)
	b = append(b, datagramVersion)
	return binary.BigEndian.AppendUint16(b, port)
}
