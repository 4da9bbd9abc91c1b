// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/subtle"
	"encoding/binary"
	"net/netip"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// DatagramConfig says which datagrams a receiver takes. It is read only: Open
// may run concurrently, each call with its own scratch.
type DatagramConfig struct {
	// Methods are those of the four datagram methods that are enabled here.
	Methods knockcore.MethodSet
	// Ports are the protected ports of the services, distinct, 1 to 65535. A
	// frame names its port only in sealed form, so each of them costs another
	// scan of the clients.
	Ports []uint16
	// MaxFrame is the greatest frame in bytes, 0 for DefaultMaxDatagram.
	MaxFrame int
}

// Open verifies a libknock datagram and finds its sender. What it returns shares
// no memory with b.
//
// It checks cheap things first. Length, reserved byte, flags and sealed length
// cost nothing; then come at most len(c.Ports) × len(k.Credentials()) HMACs of
// two hash blocks each, stopping after the first port for which a frame
// authenticates, and no allocation. Only a fitting hint, which nobody makes
// without the secret, leads to decryption: one for each port and secret that
// fits, so one in practice, also where clients share a secret. Whoever replays a
// captured header costs that one decryption.
//
// Errors wrap ReasonMalformed, ReasonUnsupported (unknown flags),
// ReasonUnknownClient (no hint fits), ReasonAuthFailed (a hint fits, the rest
// does not), ReasonWrongPort and ReasonWrongMethod. Time window and replay are
// the caller's: the key of the replay guard is
// knockcore.NewReplayKey(knockcore.ReplayUDP, cred.Client.ID, d.Nonce), and so
// is what sequence methods need (see [Datagram.NeedsSequence]).
func (c *DatagramConfig) Open(k *knockcore.Keyring, s *knockcore.MACScratch, b []byte) (*Datagram, *knockcore.Credential, error) {
	return c.OpenFrom(netip.Addr{}, k, s, b)
}

// OpenFrom is Open for a datagram from this address: clients that were admitted from
// there lately (see [knockcore.Keyring.Remember]) are tried before the others, which
// changes nothing but the cost.
func (c *DatagramConfig) OpenFrom(source netip.Addr, k *knockcore.Keyring, s *knockcore.MACScratch, b []byte) (*Datagram, *knockcore.Credential, error) {
	if reason := c.checkHeader(b); reason != knockcore.ReasonNone {
		return nil, nil, reason
	}
	var room [4]*knockcore.Credential
	var fits *knockcore.Credential
	hint := b[DatagramNonceLen : DatagramNonceLen+knockcore.HintLen]
	for _, all := range [...]bool{false, true} {
		for _, port := range c.Ports {
			s.Buf = appendHintMessage(s.Buf[:0], datagramHintLabel, b[:DatagramNonceLen], port)
			found := room[:0]
			if all {
				found = k.Candidates(s, s.Buf, hint, found)
			} else {
				found = k.Familiar(source, s, s.Buf, hint, found)
			}
			if len(found) == 0 {
				continue
			}
			fits = found[0]
			if d, cred, err := c.openFor(found, s, b, port); d != nil || err != nil {
				return d, cred, err
			}
		}
	}
	if fits == nil {
		return nil, nil, knockcore.ReasonUnknownClient
	}
	return nil, nil, &knockcore.Refusal{Reason: knockcore.ReasonAuthFailed, Client: fits.Client.ID}
}

// checkHeader checks what needs no key.
func (c *DatagramConfig) checkHeader(b []byte) knockcore.Reason {
	limit := c.MaxFrame
	if limit <= 0 {
		limit = DefaultMaxDatagram
	}
	switch {
	case len(b) < DatagramHeaderLen || len(b) > limit || b[datagramReservedAt] != 0:
		return knockcore.ReasonMalformed
	case b[datagramFlagsAt]&^byte(datagramFlags) != 0:
		return knockcore.ReasonUnsupported
	}
	sealed := int(binary.BigEndian.Uint16(b[datagramLengthAt:]))
	if sealed == 0 || DatagramHeaderLen+sealed != len(b) {
		return knockcore.ReasonMalformed
	}
	return knockcore.ReasonNone
}

// openFor opens the frame with the credentials whose hint fits for port. It
// returns nothing at all if none of them does.
func (c *DatagramConfig) openFor(found []*knockcore.Credential, s *knockcore.MACScratch, b []byte, port uint16) (*Datagram, *knockcore.Credential, error) {
	var nonce, plain []byte
	for i, cred := range found {
		if i == 0 || !cred.Secret.Equal(found[i-1].Secret) {
			nonce, plain = decryptDatagram(s, cred, b, port)
		}
		if plain == nil {
			continue
		}
		p, ok := parseDatagram(plain)
		if !ok {
			return nil, nil, &knockcore.Refusal{Reason: knockcore.ReasonMalformed, Client: cred.Client.ID, Detail: "sealed fields"}
		}
		if hash := datagramIDHash(&cred.MAC, s, cred.Client.ID); subtle.ConstantTimeCompare(hash[:], p.idHash) != 1 {
			continue
		}
		d := p.datagram()
		d.Nonce = nonce
		if reason, detail := c.judge(&p, d, port, b[datagramFlagsAt]); reason != knockcore.ReasonNone {
			return nil, nil, &knockcore.Refusal{Reason: reason, Client: cred.Client.ID, Detail: detail}
		}
		return d, cred, nil
	}
	return nil, nil, nil
}

// decryptDatagram returns copies of the nonce and the plaintext, nil if the
// frame does not authenticate.
func decryptDatagram(s *knockcore.MACScratch, cred *knockcore.Credential, b []byte, port uint16) (nonce, plain []byte) {
	buf := make([]byte, DatagramNonceLen, len(b))
	copy(buf, b)
	aead := datagramAEAD(s, cred, b[:DatagramNonceLen])
	s.Buf = appendDatagramAAD(s.Buf[:0], b, port)
	buf, err := aead.Open(buf, b[:chacha20poly1305.NonceSize], b[DatagramHeaderLen:], s.Buf)
	if err != nil {
		return nil, nil
	}
	return buf[:DatagramNonceLen:DatagramNonceLen], buf[DatagramNonceLen:]
}

// datagram takes over the payload's fields.
func (p *datagramPayload) datagram() *Datagram {
	d := &Datagram{
		Method:       datagramMethod(p.method),
		Port:         p.port,
		Time:         p.time,
		Sequence:     p.kind == datagramPart,
		ClientRandom: p.random,
		Extensions:   p.extensions,
	}
	if len(p.session) > 0 {
		d.Session = p.session
	}
	if d.Sequence && len(p.sequenceID) == len(d.SequenceID) {
		d.SequenceID = [16]byte(p.sequenceID)
		d.Index, d.Total = p.index, p.total
	}
	return d
}

// judge checks the fields of an authentic frame in libknock's order.
func (c *DatagramConfig) judge(p *datagramPayload, d *Datagram, port uint16, flags byte) (knockcore.Reason, string) {
	switch {
	case d.Port != port:
		return knockcore.ReasonWrongPort, "sealed port differs from the hint's"
	case !validDatagramSession(p.session):
		return knockcore.ReasonMalformed, "session ID shorter than 16 bytes"
	case flags != d.flags():
		return knockcore.ReasonMalformed, "flags do not fit the content"
	case !c.Methods.Has(d.Method):
		return knockcore.ReasonWrongMethod, ""
	case p.kind != datagramSingle && p.kind != datagramPart:
		return knockcore.ReasonMalformed, "unknown frame type"
	case d.Sequence && !d.NeedsSequence():
		return knockcore.ReasonMalformed, "part of a sequence with a method that has none"
	case d.Sequence && (len(p.sequenceID) != len(d.SequenceID) || !validUDPPart(p.index, p.total)):
		return knockcore.ReasonMalformed, "sequence fields"
	}
	return knockcore.ReasonNone, ""
}
