// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestParsePyknockKey(t *testing.T) {
	for _, v := range readPyknockVectors(t) {
		if key, err := ParsePyknockKey(v.PSK); err != nil || !key.Equal(v.psk(t)) {
			t.Errorf("%s: %q is not read as %s: %v", v.ID, v.PSK, v.PSKHex, err)
		}
	}
	if key, err := ParsePyknockKey("base64:/wA="); err != nil || string(key.Bytes()) != "\xff\x00" {
		t.Errorf("base64: %v", err)
	}
	for _, text := range []string{"10 €", "hex:zz", "raw\xff"} {
		if _, err := ParsePyknockKey(text); err == nil || strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPyknockKeysCannotBePrinted(t *testing.T) {
	keys := pyknockRing(t, knockcore.NewSecret([]byte("MySecretPSK")))
	if keys.Len() != 1 {
		t.Errorf("%d keys", keys.Len())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%x", "%s"} {
		if s := fmt.Sprintf(verb, keys); s != "[1 pyknock keys]" {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}
