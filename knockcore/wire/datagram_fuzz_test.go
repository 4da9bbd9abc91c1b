// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// FuzzDatagram: whatever arrives, Open returns a datagram that is whole, or a
// reason.
func FuzzDatagram(f *testing.F) {
	cred := testCredential("alice", datagramSecret)
	k, s := testKeyring(f, cred), knockcore.NewMACScratch()
	for _, m := range []knockcore.Method{knockcore.MethodUDP, knockcore.MethodUDPSeq} {
		b, err := (&Datagram{Method: m, Port: 22, Sequence: m == knockcore.MethodUDPSeq, Total: 3}).Seal(cred)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, v := range loadDatagramVectors(f).Negative {
		f.Add([]byte(v.Wire))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, who, err := anyDatagram.Open(k, s, b)
		if (d == nil) != (err != nil) || (who == nil) != (err != nil) {
			t.Fatalf("%v, %v, %v", d, who, err)
		}
		if r := knockcore.ReasonOf(err); r == knockcore.ReasonStoreError {
			t.Fatalf("an error without reason: %v", err)
		}
	})
}

// FuzzDatagramRoundTrip: what can be sealed is what is opened.
func FuzzDatagramRoundTrip(f *testing.F) {
	f.Add(byte(0), uint16(22), int64(1), []byte(nil), []byte("id"), byte(0), byte(3), []byte("r"), []byte{0, 1, 0, 1, 7}, []byte("nonce"))
	f.Add(byte(1), uint16(65535), int64(-1), bytes.Repeat([]byte{9}, 16), []byte("id"), byte(7), byte(8), []byte{}, []byte{}, []byte{})
	f.Add(byte(3), uint16(1), int64(1<<62), bytes.Repeat([]byte{9}, 255), []byte("id"), byte(1), byte(2), bytes.Repeat([]byte{8}, 255), []byte{}, []byte("n"))
	cred := testCredential("alice", datagramSecret)
	k, s := testKeyring(f, cred), knockcore.NewMACScratch()
	methods := []knockcore.Method{knockcore.MethodUDP, knockcore.MethodUDPSeq, knockcore.MethodUDPPassive, knockcore.MethodUDPPassiveSeq}
	f.Fuzz(func(t *testing.T, method byte, port uint16, at int64, session, id []byte, index, total byte, random, extensions, nonce []byte) {
		d := &Datagram{
			Method: methods[method%4], Port: port, Time: at, Session: session, Sequence: method%2 == 1,
			ClientRandom: random, Nonce: append(nonce, make([]byte, 16)...)[:16],
		}
		if d.Sequence {
			copy(d.SequenceID[:], id)
			d.Index, d.Total = index, total
		}
		d.Extensions, _ = ParseTLVs(extensions)
		b, err := d.SealMax(cred, 1<<16)
		if err != nil {
			return
		}
		cfg := DatagramConfig{Methods: knockcore.NewMethodSet(d.Method), Ports: []uint16{port ^ 1, port}, MaxFrame: len(b)}
		got, _, err := cfg.Open(k, s, b)
		if err != nil {
			t.Fatal(err)
		}
		sameDatagram(t, got, d)
		if again, err := got.SealMax(cred, len(b)); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("sealed again: %x, %v; want %x", again, err, b)
		}
	})
}

// FuzzDatagramPayload goes past the encryption: any plaintext, any flags.
func FuzzDatagramPayload(f *testing.F) {
	for _, v := range loadDatagramVectors(f).Positive {
		f.Add(v.Expect.Flags, []byte(v.Expect.Plaintext))
	}
	f.Fuzz(func(t *testing.T, flags byte, plain []byte) {
		p, ok := parseDatagram(plain)
		if !ok {
			return
		}
		if len(p.idHash) != 16 || p.port == 0 || len(p.method) == 0 {
			t.Fatalf("%+v", p)
		}
		d := p.datagram()
		reason, _ := anyDatagram.judge(&p, d, p.port, flags)
		if reason != knockcore.ReasonNone {
			return
		}
		if d.flags() != flags || p.kind != 1 && p.kind != 2 || !validDatagramSession(d.Session) ||
			d.Sequence && !validUDPPart(d.Index, d.Total) || datagramMethod(p.method) != d.Method {
			t.Fatalf("accepted: %+v", d)
		}
		again, err := d.appendPayload(nil, [16]byte(p.idHash))
		if err != nil || d.Sequence && !bytes.Equal(again, plain) {
			t.Fatalf("written again: %x, %v; want %x", again, err, plain)
		}
	})
}
