// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestTLVVectors(t *testing.T) {
	for _, v := range loadTCPVectors(t).TLVs {
		t.Run(v.Name, func(t *testing.T) {
			if strings.HasPrefix(v.Name, "tlv-encode-total-65536") { // the input is told in the name only
				dst := []byte("before")
				got, err := AppendTLVs(dst, []TLV{{Value: make([]byte, 65532)}})
				if !errors.Is(err, knockcore.ReasonMalformed) || !bytes.Equal(got, dst) {
					t.Errorf("%d bytes, error %v", len(got), err)
				}
				return
			}
			got, err := ParseTLVs(v.Encoded)
			if v.Decode != "ok" {
				if !errors.Is(err, knockcore.ReasonMalformed) || got != nil {
					t.Errorf("parsed %v, error %v", got, err)
				}
				return
			}
			if err != nil || len(got) != len(v.List) {
				t.Fatalf("parsed %v, error %v", got, err)
			}
			for i, want := range v.List {
				if got[i].Type != want.Type || !bytes.Equal(got[i].Value, want.Value) {
					t.Errorf("element %d is %v, want %v", i, got[i], want)
				}
			}
			again, err := AppendTLVs([]byte("x"), got)
			if err != nil || !bytes.Equal(again[1:], v.Encoded) {
				t.Errorf("encoded %x, error %v", again, err)
			}
		})
	}
}

func TestTLVLimit(t *testing.T) {
	b, err := AppendTLVs(nil, []TLV{{Value: make([]byte, 65531)}})
	if err != nil || len(b) != 65535 {
		t.Fatalf("%d bytes, error %v", len(b), err)
	}
	if list, err := ParseTLVs(b); err != nil || len(list) != 1 {
		t.Errorf("parsed %d elements, error %v", len(list), err)
	}
	if _, err := ParseTLVs(make([]byte, 65536)); !errors.Is(err, knockcore.ReasonMalformed) {
		t.Errorf("parsed 65536 bytes, error %v", err)
	}
}
