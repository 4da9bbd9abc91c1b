// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Constants of the SYN knocks (libknock.md section 7).
const (
	// DefaultSYNSlot is the length of a time slot in seconds.
	DefaultSYNSlot = 30
	// MinSYNSequence and MaxSYNSequence bound the number of parts of a
	// tcp-syn-seq knock. libknock computes other numbers as 3 and then waits for
	// the configured one, so we refuse them.
	MinSYNSequence, MaxSYNSequence = 2, 5
	// SYNNonceLen is the length in bytes of the replay nonce of a SYN knock.
	SYNNonceLen = 14

	synLabel          = "syn-knock"
	synSeqLabel       = "libknock/tcp-syn-seq/v1"
	synSeqLegacyLabel = "knock-proxy/tcp-syn-seq/v1"

	synLegacyPorts = 64511 // legacy parts go to ports 1024 to 65534
	synReplayMark  = 9     // ends the replay nonce
)

// SYNFields is where a SYN carries its tag: the three fields of the TCP header
// in host byte order (on the wire they are big endian).
type SYNFields struct {
	// Seq is the sequence number.
	Seq uint32
	// Window is the window, never 0 in a knock: senders replace 0 by 1.
	Window uint16
	// TSval is the value of the timestamp option (kind 8, length 10).
	TSval uint32
}

// SYNSlot numbers the time slot of a moment in Unix seconds: the quotient rounded
// down, also before 1970. Slots that are not positive count as one second long.
func SYNSlot(unixSeconds, slotSeconds int64) int64 {
	if slotSeconds <= 1 {
		return unixSeconds
	}
	slot := unixSeconds / slotSeconds
	if unixSeconds%slotSeconds < 0 {
		slot--
	}
	return slot
}

// SYNTag computes the fields of a tcp-syn knock to the protected port in a slot
// (libknock.md section 7.1). It needs the credential's client ID, of at most
// 65535 bytes, and its secret.
func SYNTag(cred *knockcore.Credential, port uint16, slot int64) SYNFields {
	mac := knockcore.NewMAC(cred.Secret.Bytes()) // a credential made by hand has none
	s := knockcore.GetMACScratch()
	defer s.Free()
	return synTag(&mac, s, cred.Client.ID, port, slot)
}

// SYNSeqTag computes the fields of part index, counted from 0, of a tcp-syn-seq
// knock to the protected port in a slot, and the port that the SYN goes to
// (libknock.md section 7.2): the protected port itself, unless legacy asks for
// the older namespace, where it is derived from the tag. The tag does not depend
// on the number of parts.
func SYNSeqTag(cred *knockcore.Credential, port uint16, slot int64, index uint8, legacy bool) (f SYNFields, dstPort uint16) {
	mac := knockcore.NewMAC(cred.Secret.Bytes())
	s := knockcore.GetMACScratch()
	defer s.Free()
	return synSeqTag(&mac, s, cred.Client.ID, port, slot, index, legacy)
}

func synTag(mac *knockcore.MAC, s *knockcore.MACScratch, id string, port uint16, slot int64) SYNFields {
	s.Buf = appendSYNMessage(s.Buf[:0], synLabel, id, port, slot)
	return synFields(mac.Sum(s, s.Buf)[:])
}

func synSeqTag(mac *knockcore.MAC, s *knockcore.MACScratch, id string, port uint16, slot int64, index uint8, legacy bool) (SYNFields, uint16) {
	label := synSeqLabel
	if legacy {
		label = synSeqLegacyLabel
	}
	s.Buf = appendSYNMessage(s.Buf[:0], label, id, port, slot)
	s.Buf = binary.BigEndian.AppendUint16(s.Buf, uint16(index))
	tag := mac.Sum(s, s.Buf)
	if legacy {
		port = 1024 + binary.BigEndian.Uint16(tag[:])%synLegacyPorts
	}
	return synFields(tag[2:]), port
}

func appendSYNMessage(dst []byte, label, id string, port uint16, slot int64) []byte {
	dst = append(dst, label...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(id)))
	dst = append(dst, id...)
	dst = binary.BigEndian.AppendUint16(dst, port)
	return binary.BigEndian.AppendUint64(dst, uint64(slot))
}

// synFields takes 10 bytes of a tag.
func synFields(tag []byte) SYNFields {
	return SYNFields{
		Seq:    binary.BigEndian.Uint32(tag),
		Window: max(1, binary.BigEndian.Uint16(tag[4:])),
		TSval:  binary.BigEndian.Uint32(tag[6:]),
	}
}

// Nonce returns what makes a SYN knock the same knock: what
// knockcore.NewReplayKey takes for the class ReplaySYN (libknock.md section
// 7.1), with the protected port. Source address and port play no part.
func (f SYNFields) Nonce(port uint16) (nonce [SYNNonceLen]byte) {
	binary.BigEndian.PutUint32(nonce[0:], f.Seq)
	binary.BigEndian.PutUint16(nonce[4:], f.Window)
	binary.BigEndian.PutUint32(nonce[6:], f.TSval)
	binary.BigEndian.PutUint16(nonce[10:], port)
	binary.BigEndian.PutUint16(nonce[12:], synReplayMark)
	return nonce
}

// SYNMatch is what a SYN was recognised as. It is authentic as far as 80 bits of
// a tag are, and binds neither its source nor, within its slot, its time.
type SYNMatch struct {
	// Credential is whose tag it is.
	Credential *knockcore.Credential
	// Method is MethodTCPSYN or MethodTCPSYNSeq.
	Method knockcore.Method
	// Port is the protected port.
	Port uint16
	// Slot is the time slot that the tag was made for.
	Slot int64
	// Index is the part, counted from 0 and below Total; a tcp-syn knock is part 0
	// of 1.
	Index, Total uint8
	// Legacy says that the part is of tcp-syn-seq's older namespace.
	Legacy bool
}

// ReplayNonce is the nonce to spend for the knock: a tcp-syn knock's own, and
// that of part 0 for every part of a tcp-syn-seq knock.
func (m SYNMatch) ReplayNonce() [SYNNonceLen]byte {
	s := knockcore.GetMACScratch()
	defer s.Free()
	var f SYNFields
	if c := m.Credential; m.Method == knockcore.MethodTCPSYN {
		f = synTag(&c.MAC, s, c.Client.ID, m.Port, m.Slot)
	} else {
		f, _ = synSeqTag(&c.MAC, s, c.Client.ID, m.Port, m.Slot, 0, m.Legacy)
	}
	return f.Nonce(m.Port)
}
