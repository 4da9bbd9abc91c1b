// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"testing"
)

// TestMAC compares with crypto/hmac and crypto/hkdf, for keys around the length of
// a block, with one scratch for all.
func TestMAC(t *testing.T) {
	s := NewMACScratch()
	msg := bytes.Repeat([]byte("message "), 20)
	for _, length := range []int{0, 1, 16, 32, 63, 64, 65, 200} {
		key := bytes.Repeat([]byte{0xa7}, length)
		for n := range len(msg) {
			h := hmac.New(sha256.New, key)
			h.Write(msg[:n])
			want := h.Sum(nil)
			mac := NewMAC(key)
			if got := mac.Sum(s, msg[:n]); !bytes.Equal(got[:], want) {
				t.Errorf("key of %d, message of %d: Sum is %x, want %x", length, n, *got, want)
			}
			if got := s.SumWith(key, msg[:n]); !bytes.Equal(got[:], want) {
				t.Errorf("key of %d, message of %d: SumWith is %x, want %x", length, n, *got, want)
			}
			hint := want[:HintLen]
			if !mac.begins(s, msg[:n], hint) {
				t.Errorf("key of %d, message of %d: it does not begin with %x", length, n, hint)
			}
			for i := range hint {
				hint[i] ^= 1 << (n % 8)
				if mac.begins(s, msg[:n], hint) {
					t.Errorf("key of %d, message of %d: it begins with %x too", length, n, hint)
				}
				hint[i] ^= 1 << (n % 8)
			}
		}
		for _, salt := range []int{0, 16, 24, 64, 100} {
			want, err := hkdf.Key(sha256.New, key, msg[:salt], "what it is for", 32)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.HKDF(key, msg[:salt], "what it is for"); !bytes.Equal(got[:], want) {
				t.Errorf("secret of %d, salt of %d: HKDF is %x, want %x", length, salt, *got, want)
			}
		}
	}
	secret := []byte("a secret of some length")
	if n := testing.AllocsPerRun(100, func() {
		s.SumWith(secret, msg)
		s.HKDF(secret, msg[:16], "what it is for")
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkNewMAC(b *testing.B) {
	key := []byte("a secret of some length")
	b.ReportAllocs()
	for b.Loop() {
		NewMAC(key)
	}
}

// BenchmarkNewKeyring: what a start and each change of the clients costs.
func BenchmarkNewKeyring(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		clients := make([]*Client, n)
		for i := range clients {
			clients[i] = &Client{ID: fmt.Sprintf("c%05d", i), Secrets: []Secret{NewSecret(fmt.Appendf(nil, "a secret of client %d", i))}}
		}
		b.Run(fmt.Sprintf("clients=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ring, err := NewKeyring(clients)
				if err != nil {
					b.Fatal(err)
				}
				ring.Prepare()
			}
		})
	}
}
