// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// TestFrameVectors rebuilds every positive vector byte for byte, opens it, and
// checks the steps in between.
func TestFrameVectors(t *testing.T) {
	vectors := loadTCPVectors(t)
	for _, v := range slices.Concat(vectors.V1, vectors.V2) {
		t.Run(v.Name, func(t *testing.T) {
			cred := testCredential(v.ClientID, v.Secret)
			f := v.frame()
			if f.Flags() != v.Flags {
				t.Errorf("flags %#x, want %#x", f.Flags(), v.Flags)
			}
			got, err := f.Seal(cred)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, v.Wire) {
				t.Errorf("sealed\n%x, want\n%x", got, []byte(v.Wire))
			}
			if f.Hint != v.hint() || f.Size != len(v.Wire) || !bytes.Equal(f.ReplayNonce(), v.Expect.ReplayNonce) {
				t.Errorf("hint %x, size %d, replay nonce %x", f.Hint, f.Size, f.ReplayNonce())
			}
			checkProof(t, f, cred, v.Expect.Proof)
			checkSteps(t, &v, cred)

			opened := openVector(&v, cred)
			if opened == nil {
				t.Fatal("does not open")
			}
			checkSame(t, opened, f)
			checkProof(t, opened, cred, v.Expect.Proof)
		})
	}
}

func openVector(v *tcpPositive, cred *knockcore.Credential) *TCPFrame {
	if v.Prefix == nil {
		return openV1(cred, v.Wire)
	}
	return openV2(cred, v.Port, v.HintMode == "none", v.Wire)
}

func checkProof(t *testing.T, f *TCPFrame, cred *knockcore.Credential, want []byte) {
	t.Helper()
	if proof := f.ServerProof(cred); !bytes.Equal(proof[:], want) {
		t.Errorf("proof\n%x, want\n%x", proof, want)
	}
	if !f.VerifyServerProof(cred, want) {
		t.Error("proof not verified")
	}
}

// checkSteps compares ID hash, key, nonce, additional data, plaintext and the
// lengths inside.
func checkSteps(t *testing.T, v *tcpPositive, cred *knockcore.Credential) {
	t.Helper()
	var key, nonce, aad, sealed []byte
	if v.Prefix == nil {
		aad = v.Wire[:v1HeaderLen]
		key, nonce, sealed = v1Key(cred, aad), aad[v1NonceAt:v1LengthAt], v.Wire[v1HeaderLen:]
		if size, reason := checkV1Header(aad, v1MaxFrame); reason != 0 || size != v1HeaderLen+v.Expect.SealedLen {
			t.Errorf("header gives size %d, reason %v", size, reason)
		}
	} else {
		head := v2HeadLen(v.HintMode == "none")
		aad = v2AAD(v.Wire[:head], v.Bucket, v.Port)
		key, nonce, sealed = tcpKey(cred, v.Prefix, v2KeyInfo), v.Prefix, v.Wire[head:]
		if room := v.frame().v2Room(v.Bucket); room != v.Expect.PaddingLen {
			t.Errorf("padding of %d bytes, want %d", room, v.Expect.PaddingLen)
		}
	}
	plain, ok := tcpOpen(key, nonce, sealed, aad)
	if !ok {
		t.Error("AEAD does not open")
	}
	for _, c := range []struct {
		name      string
		got, want []byte
	}{
		{"ID hash", tcpIDHash(cred), v.Expect.IDHash},
		{"key", key, v.Expect.Key},
		{"nonce", nonce, v.Expect.AEADNonce},
		{"additional data", aad, v.Expect.AAD},
		{"plaintext", plain, v.Expect.Plain},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s\n%x, want\n%x", c.name, c.got, c.want)
		}
	}
}

// checkSame compares what a frame carries, whether sealed or opened.
func checkSame(tb testing.TB, got, want *TCPFrame) {
	tb.Helper()
	if got.Method != want.Method || got.Port != want.Port || got.Time != want.Time || got.WantProof != want.WantProof ||
		got.KnockMethod != want.KnockMethod || !bytes.Equal(got.Session, want.Session) ||
		!bytes.Equal(got.Extensions, want.Extensions) || got.HintNone != want.HintNone ||
		!bytes.Equal(got.Nonce, want.Nonce) || got.Hint != want.Hint || got.Size != want.Size {
		tb.Errorf("opened\n%+v, want\n%+v", got, want)
	}
	if len(got.Session) == 0 && got.Session != nil || len(got.Extensions) == 0 && got.Extensions != nil {
		tb.Error("an empty field is not nil")
	}
	if got.Method == knockcore.MethodEnvelopeV2 && got.Bucket != got.Size {
		tb.Errorf("bucket %d, size %d", got.Bucket, got.Size)
	}
}

func TestSealRefuses(t *testing.T) {
	cred := testCredential("laptop", bytes.Repeat([]byte{7}, 32))
	v1 := func(f TCPFrame) TCPFrame { f.Method = knockcore.MethodFrameV1; return f }
	v2 := func(f TCPFrame) TCPFrame { f.Method = knockcore.MethodEnvelopeV2; return f }
	long := string(make([]byte, 256))
	for name, c := range map[string]struct {
		frame TCPFrame
		cred  *knockcore.Credential
		want  knockcore.Reason
	}{
		"no method":       {TCPFrame{}, cred, knockcore.ReasonUnsupported},
		"other method":    {TCPFrame{Method: knockcore.MethodUDP}, cred, knockcore.ReasonUnsupported},
		"no ID":           {v1(TCPFrame{}), testCredential("", bytes.Repeat([]byte{7}, 32)), knockcore.ReasonMalformed},
		"no client":       {v1(TCPFrame{}), &knockcore.Credential{Secret: cred.Secret}, knockcore.ReasonMalformed},
		"weak secret":     {v1(TCPFrame{}), testCredential("laptop", make([]byte, 15)), knockcore.ReasonMalformed},
		"method":          {v2(TCPFrame{KnockMethod: long}), cred, knockcore.ReasonMalformed},
		"session":         {v1(TCPFrame{Session: []byte(long)}), cred, knockcore.ReasonMalformed},
		"v1 too long":     {v1(TCPFrame{Extensions: make([]byte, 950)}), cred, knockcore.ReasonMalformed},
		"v1 wraps":        {v1(TCPFrame{Extensions: make([]byte, 1<<16)}), cred, knockcore.ReasonMalformed},
		"v1 nonce":        {v1(TCPFrame{Nonce: make([]byte, 24)}), cred, knockcore.ReasonMalformed},
		"v1 empty nonce":  {v1(TCPFrame{Nonce: []byte{}}), cred, knockcore.ReasonMalformed},
		"v2 prefix":       {v2(TCPFrame{Nonce: make([]byte, 16)}), cred, knockcore.ReasonMalformed},
		"v2 bucket":       {v2(TCPFrame{Bucket: 129}), cred, knockcore.ReasonUnsupported},
		"v2 small bucket": {v2(TCPFrame{Bucket: 128, Extensions: make([]byte, 47)}), cred, knockcore.ReasonMalformed},
		"v2 too long":     {v2(TCPFrame{Extensions: make([]byte, 431)}), cred, knockcore.ReasonMalformed},
		"v2 none":         {v2(TCPFrame{Extensions: make([]byte, 439), HintNone: true}), cred, knockcore.ReasonMalformed},
		"v2 padding":      {v2(TCPFrame{Bucket: 128, Padding: make([]byte, 45)}), cred, knockcore.ReasonMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if b, err := c.frame.Seal(c.cred); b != nil || !errors.Is(err, c.want) {
				t.Errorf("sealed %d bytes, error %v; want %v", len(b), err, c.want)
			}
		})
	}
}

// TestV1Limit checks the greatest frame: method, session and extensions of 949
// bytes (libknock.md section 2).
func TestV1Limit(t *testing.T) {
	cred := testCredential("laptop", bytes.Repeat([]byte{7}, 32))
	f := TCPFrame{Method: knockcore.MethodFrameV1, Extensions: make([]byte, 949)}
	if b, err := f.Seal(cred); err != nil || len(b) != 1024 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	f = TCPFrame{Method: knockcore.MethodFrameV1}
	if b, err := f.Seal(cred); err != nil || len(b) != 75 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// TestSealTwice checks that a nonce is never used for two frames, unless the
// caller insists.
func TestSealTwice(t *testing.T) {
	cred := testCredential("laptop", bytes.Repeat([]byte{7}, 32))
	for _, method := range []knockcore.Method{knockcore.MethodFrameV1, knockcore.MethodEnvelopeV2} {
		f := TCPFrame{Method: method}
		if _, err := f.Seal(cred); err != nil {
			t.Fatal(err)
		}
		first := f.Nonce
		if _, err := f.Seal(cred); err != nil || bytes.Equal(f.Nonce, first) {
			t.Errorf("%v: second nonce %x, first %x, error %v", method, f.Nonce, first, err)
		}
		f.Nonce = slices.Clone(first)
		if _, err := f.Seal(cred); err != nil || !bytes.Equal(f.Nonce, first) {
			t.Errorf("%v: nonce %x, asked for %x, error %v", method, f.Nonce, first, err)
		}
	}
}
