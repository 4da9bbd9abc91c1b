// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// TestV2Room holds the table of libknock.md section 3: what fits a bucket does,
// one byte more takes the next one, never an error in between.
func TestV2Room(t *testing.T) {
	for _, c := range []struct{ bucket, hint, none int }{
		{128, 46, 54}, {192, 110, 118}, {256, 174, 182}, {384, 302, 310}, {512, 430, 438},
	} {
		for none, room := range map[bool]int{false: c.hint, true: c.none} {
			for over := range 3 {
				f := TCPFrame{HintNone: none, Extensions: make([]byte, room+over)}
				if got := f.v2Room(c.bucket); got != -over {
					t.Errorf("bucket %d, none %v, %d bytes: room %d", c.bucket, none, room+over, got)
				}
				bucket, err := f.v2Bucket()
				if over > 0 && c.bucket == 512 {
					if err == nil {
						t.Errorf("none %v: %d bytes fit bucket %d", none, room+over, bucket)
					}
				} else if err != nil || over == 0 && bucket < c.bucket || over > 0 && bucket <= c.bucket {
					t.Errorf("none %v: %d bytes get bucket %d, error %v", none, room+over, bucket, err)
				}
			}
		}
	}
}

// TestV2BucketDraw checks that each bucket that fits is drawn about equally
// often: 4000 draws, mean 800 or 1333, far more than six standard deviations
// allowed.
func TestV2BucketDraw(t *testing.T) {
	for _, c := range []struct {
		extensions int
		want       []int
	}{
		{0, []int{128, 192, 256, 384, 512}},
		{111, []int{256, 384, 512}},
	} {
		count := map[int]int{}
		f := TCPFrame{Extensions: make([]byte, c.extensions)}
		for range 4000 {
			bucket, err := f.v2Bucket()
			if err != nil {
				t.Fatal(err)
			}
			count[bucket]++
		}
		if got := slices.Sorted(maps.Keys(count)); !slices.Equal(got, c.want) {
			t.Fatalf("buckets %v, want %v", got, c.want)
		}
		for bucket, n := range count {
			if mean := 4000 / len(c.want); n < mean*3/4 || n > mean*5/4 {
				t.Errorf("bucket %d drawn %d times, mean %d", bucket, n, mean)
			}
		}
	}
}

func TestBuckets(t *testing.T) {
	Buckets()[0] = 1
	if got := Buckets(); !slices.Equal(got, []int{128, 192, 256, 384, 512}) {
		t.Errorf("buckets %v", got)
	}
}

func TestV2Padding(t *testing.T) {
	cred := testCredential("laptop", bytes.Repeat([]byte{7}, 32))
	plain := func(zero bool) []byte {
		f := TCPFrame{Method: knockcore.MethodEnvelopeV2, Bucket: 512, ZeroPadding: zero}
		b, err := f.Seal(cred)
		if err != nil {
			t.Fatal(err)
		}
		p, ok := tcpOpen(tcpKey(cred, f.Nonce, v2KeyInfo), f.Nonce, b[v2HintEnd:], v2AAD(b[:v2HintEnd], 512, 0))
		if !ok {
			t.Fatal("does not open")
		}
		return p[len(p)-430:]
	}
	if !bytes.Equal(plain(true), make([]byte, 430)) {
		t.Error("policy none does not pad with zeros")
	}
	if a, b := plain(false), plain(false); bytes.Equal(a, b) || bytes.Count(a, []byte{0}) > 40 {
		t.Error("padding is not random")
	}
}

func TestV2PrefixFit(t *testing.T) {
	tail := string(make([]byte, 24))
	for head, want := range map[string]bool{
		"\x00": true, "\x01": false, "\x02": true, "\xff": true,
		"GET /": false, "GET -": true, "SSH-2": false, "SSH-3": true,
		"\x16\x03\x01\x02\x00\x01\x00": false, "\x16\x03\x01\x02\x00\x02\x00": true,
	} {
		if got := v2PrefixFit([]byte((head + tail)[:24])); got != want {
			t.Errorf("%q: %v", head, got)
		}
	}
	cred := testCredential("laptop", bytes.Repeat([]byte{7}, 32))
	for range 3000 { // a draw begins with 1 in one of 256 cases
		f := TCPFrame{Method: knockcore.MethodEnvelopeV2, Bucket: 128}
		if b, err := f.Seal(cred); err != nil || b[0] == v1Version {
			t.Fatalf("sealed %x, %v", b, err)
		}
	}
}

// TestV2Inner covers what the negative vectors show for single values only: the
// parser refuses every other version, every unknown flag and every wrong length
// of the padding.
func TestV2Inner(t *testing.T) {
	v := &loadTCPVectors(t).V2[0]
	good := v.Expect.Plain
	parse := func(at int, value byte) bool {
		b := bytes.Clone(good)
		b[at] = value
		_, ok := new(TCPFrame).parseV2(b)
		return ok
	}
	paddingAt := len(good) - v.Expect.PaddingLen - 1
	for value := range 256 {
		b := byte(value)
		if parse(0, b) != (b == 2) || parse(1, b) != (b <= 1) || parse(paddingAt, b) != (int(b) == v.Expect.PaddingLen) {
			t.Errorf("value %#x: version %v, flags %v, padding %v", b, parse(0, b), parse(1, b), parse(paddingAt, b))
		}
	}
	for n := range good {
		if _, ok := new(TCPFrame).parseV2(good[:n]); ok {
			t.Errorf("parsed the first %d of %d bytes", n, len(good))
		}
	}
	if _, ok := new(TCPFrame).parseV2(append(bytes.Clone(good), 0)); ok {
		t.Error("parsed with a byte behind the padding")
	}
}
