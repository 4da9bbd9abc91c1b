// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// fuzzKeyring has every client of the positive vectors, with all the secrets
// that an ID has.
func fuzzKeyring(tb testing.TB) *knockcore.Keyring {
	vectors := loadTCPVectors(tb)
	clients := map[string]*knockcore.Client{}
	var list []*knockcore.Client
	for _, v := range slices.Concat(vectors.V1, vectors.V2) {
		if v.tooLong() {
			continue
		}
		c := clients[v.ClientID]
		if c == nil {
			c = &knockcore.Client{ID: v.ClientID}
			clients[v.ClientID] = c
			list = append(list, c)
		}
		if s := knockcore.NewSecret(v.Secret); !slices.ContainsFunc(c.Secrets, s.Equal) {
			c.Secrets = append(c.Secrets, s)
		}
	}
	k, err := knockcore.NewKeyring(list)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// Bits of FuzzStream's mode.
const (
	fuzzV1 = 1 << iota
	fuzzV2
	fuzzNone
	fuzzSeen
	fuzzFewBuckets
	fuzzShortFrames
	fuzzFewAttempts
)

func fuzzConfig(mode byte) *StreamConfig {
	c := &StreamConfig{HintNone: mode&fuzzNone != 0}
	if mode&fuzzV1 != 0 {
		c.Methods |= onlyV1
	}
	if mode&fuzzV2 != 0 {
		c.Methods |= onlyV2
	}
	if mode&fuzzSeen != 0 {
		c.Seen = func(key knockcore.ReplayKey) bool { return key[0]&1 == 0 }
	}
	if mode&fuzzFewBuckets != 0 {
		c.Buckets = []int{192, 256}
	}
	if mode&fuzzShortFrames != 0 {
		c.MaxFrame = 100
	}
	if mode&fuzzFewAttempts != 0 {
		c.MaxAttempts = 3
	}
	return c
}

// FuzzStream checks that no stream upsets the verification, that the pieces in
// which it arrives change nothing, and what a verdict promises.
func FuzzStream(f *testing.F) {
	vectors := loadTCPVectors(f)
	seeds := 0
	for _, v := range slices.Concat(vectors.V1, vectors.V2) {
		mode := byte(fuzzV1 | fuzzV2)
		if v.HintMode == "none" {
			mode |= fuzzNone
		}
		f.Add([]byte(v.Wire), v.Port, mode)
		f.Add([]byte(v.Wire), v.Port, mode|fuzzFewBuckets|fuzzFewAttempts)
		seeds++
	}
	for _, v := range vectors.Negative {
		f.Add([]byte(v.Wire), v.Server.Port, byte(fuzzV1))
		f.Add([]byte(v.Wire), v.Server.Port, byte(fuzzV2))
		f.Add([]byte(v.Wire), v.Server.Port, byte(fuzzV1|fuzzV2|fuzzSeen))
		seeds++
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Add([]byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"), uint16(testPort), byte(fuzzV1|fuzzV2))
	ring := fuzzKeyring(f)
	f.Fuzz(func(t *testing.T, stream []byte, port uint16, mode byte) {
		config := fuzzConfig(mode)
		v := feed(t, config, ring, port, slices.Clip(stream))
		switch v.State {
		case NeedMore:
			if v != (Verdict{Need: v.Need}) {
				t.Errorf("verdict %+v", v)
			}
		case Foreign:
			if v.Reason == knockcore.ReasonNone || v.Frame != nil || v.Credential != nil ||
				v.ClientID != "" && ring.Client(v.ClientID) == nil {
				t.Errorf("verdict %+v", v)
			}
		case Authentic:
			fuzzAuthentic(t, config, v, port, stream)
		}
	})
}

// fuzzAuthentic seals an accepted frame again.
func fuzzAuthentic(t *testing.T, config *StreamConfig, v Verdict, port uint16, stream []byte) {
	frame := v.Frame
	if v.Reason != knockcore.ReasonNone || v.ClientID != "" || v.Credential == nil || frame.Port != port ||
		!config.Methods.Has(frame.Method) || frame.Size > len(stream) {
		t.Fatalf("verdict %+v of %d bytes", v, len(stream))
	}
	again := *frame
	b, err := again.Seal(v.Credential)
	if err != nil || len(b) != frame.Size {
		t.Fatalf("sealed %d bytes, error %v", len(b), err)
	}
	if frame.Method == knockcore.MethodFrameV1 && !bytes.Equal(b, stream[:frame.Size]) {
		t.Errorf("sealed\n%x, came\n%x", b, stream[:frame.Size])
	}
}

// FuzzFrameRoundTrip seals what can be sealed and requires the same content from
// the stream.
func FuzzFrameRoundTrip(f *testing.F) {
	vectors := loadTCPVectors(f)
	for _, v := range slices.Concat(vectors.V1, vectors.V2) {
		f.Add(v.Prefix != nil, v.HintMode == "none", v.Bucket, v.Port, v.Time, v.Flags != 0,
			v.Method, []byte(v.Session), []byte(v.Extensions), v.ClientID, []byte(v.Secret))
	}
	f.Fuzz(func(t *testing.T, v2, none bool, bucket int, port uint16, at int64, proof bool, method string, session, extensions []byte, id string, secret []byte) {
		frame := &TCPFrame{
			Method: knockcore.MethodFrameV1, Port: port, Time: at, WantProof: proof,
			KnockMethod: method, Session: session, Extensions: extensions,
		}
		if v2 {
			frame.Method, frame.HintNone, frame.Bucket = knockcore.MethodEnvelopeV2, none, bucket
		}
		cred := testCredential(id, secret)
		b, err := frame.Seal(cred)
		if fields := len(method) + len(session) + len(extensions); err != nil {
			fits := fields <= 949 && !v2 || fields <= 430 && v2 && (bucket == 0 || bucket == 512)
			if fits && id != "" && len(secret) >= knockcore.MinSecretLen && len(method) <= 255 && len(session) <= 255 {
				t.Fatalf("%d bytes of fields: %v", fields, err)
			}
			if b != nil || !errors.Is(err, knockcore.ReasonMalformed) && !errors.Is(err, knockcore.ReasonUnsupported) {
				t.Fatalf("%d bytes, error %v", len(b), err)
			}
			return
		}
		ring, err := knockcore.NewKeyring([]*knockcore.Client{cred.Client})
		if err != nil {
			return // an ID that no client can have
		}
		v := feed(t, &StreamConfig{Methods: onlyV1 | onlyV2, HintNone: none}, ring, port, append(slices.Clip(b), "more"...))
		if v.State != Authentic || v.Frame.Size != len(b) {
			t.Fatalf("verdict %+v of %d bytes", v, len(b))
		}
		checkSame(t, v.Frame, frame)
		if !frame.VerifyServerProof(cred, proofOf(v)) {
			t.Error("proof of the opened frame does not fit the sealed one")
		}
	})
}

// FuzzTLV checks that a list is read in one way only: what parses is what it
// encodes to.
func FuzzTLV(f *testing.F) {
	for _, v := range loadTCPVectors(f).TLVs {
		f.Add([]byte(v.Encoded))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ParseTLVs(b)
		if err != nil {
			if list != nil || !errors.Is(err, knockcore.ReasonMalformed) {
				t.Errorf("list %v, error %v", list, err)
			}
			return
		}
		if again, err := AppendTLVs(nil, list); err != nil || !bytes.Equal(again, b) {
			t.Errorf("parsed %v, encodes to %x, error %v; came %x", list, again, err, b)
		}
	})
}

// FuzzTCPPayload feeds the parsers of what was decrypted: only a client with a
// secret can, but one that has gone wild must not upset the server. What they
// accept has one encoding.
func FuzzTCPPayload(f *testing.F) {
	vectors := loadTCPVectors(f)
	for _, v := range slices.Concat(vectors.V1, vectors.V2) {
		if len(v.Expect.Plain) == 0 {
			f.Fatalf("%s has no plaintext", v.Name)
		}
		f.Add([]byte(v.Expect.Plain), v.Prefix != nil)
	}
	f.Fuzz(func(t *testing.T, plain []byte, v2 bool) {
		plain = slices.Clip(plain)
		var again []byte
		frame := new(TCPFrame)
		if v2 {
			idHash, ok := frame.parseV2(plain)
			if !ok {
				return
			}
			again = append(again, v2InnerVersion, frame.Flags())
			again = binary.BigEndian.AppendUint64(again, uint64(frame.Time))
			again = append(again, idHash...)
			again = binary.BigEndian.AppendUint16(again, frame.Port)
			again = frame.appendFields(again)
			padding := len(plain) - len(again) - 2
			again = binary.BigEndian.AppendUint16(again, uint16(padding))
			again = append(again, plain[len(plain)-padding:]...)
		} else {
			idHash, ok := frame.parseV1(plain)
			if !ok {
				return
			}
			again = append(again, idHash...)
			again = binary.BigEndian.AppendUint64(again, uint64(frame.Time))
			again = binary.BigEndian.AppendUint16(again, frame.Port)
			again = frame.appendFields(again)
		}
		if !bytes.Equal(again, plain) {
			t.Errorf("encodes to\n%x, came\n%x", again, plain)
		}
	})
}
