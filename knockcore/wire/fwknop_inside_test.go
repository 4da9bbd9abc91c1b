// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// fwknopAround encrypts exactly this padded text and signs the packet: what
// somebody sends who holds the keys but does not keep to the protocol. respell
// may change the base64 text before it is signed.
func fwknopAround(t *testing.T, keys knockcore.FwknopKeys, padded []byte, respell func([]byte)) []byte {
	t.Helper()
	raw := append([]byte(fwknopMarker+"somesalt"), padded...)
	block, iv, err := fwknopCipher(keys.Encryption, raw[len(fwknopMarker):fwknopHeader])
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(raw[fwknopHeader:], padded)
	text := []byte(fwknopBase64.EncodeToString(raw))
	respell(text)
	mac := hmac.New(sha256.New, keys.HMAC.Bytes())
	mac.Write(text)
	return append(text, fwknopBase64.EncodeToString(mac.Sum(nil))...)[len(fwknopPrefix):]
}

// TestFwknopInsideIsStrict: an HMAC that fits excuses nothing that is wrong
// inside, and such refusals name the client.
func TestFwknopInsideIsStrict(t *testing.T) {
	keys := fwknopVectorNamed(t, "p01-sha256-tcp22").keys(t)
	set := fwknopRing(t, keys)
	enc := "0123456789012345:YWxpY2U:1795219350:3.0.0:1:" + b64("0.0.0.0,tcp/22")
	sha256Text := func(s string) string { return s + ":" + fwknopDigests[fwknopSHA256].sumText([]byte(s)) }
	pad := func(s string) []byte {
		n := aes.BlockSize - len(s)%aes.BlockSize
		return append([]byte(s), bytes.Repeat([]byte{byte(n)}, n)...)
	}
	lastByte := func(b []byte, c byte) []byte { b[len(b)-1] = c; return b }
	good := sha256Text(enc)
	if len(good)%aes.BlockSize == 15 || len(fwknopBase64.EncodeToString(append(make([]byte, fwknopHeader), pad(good)...)))%4 == 0 {
		t.Fatal("the text must leave padding of several bytes and spare bits")
	}
	for _, test := range []struct {
		name    string
		padded  []byte
		respell func([]byte)
		want    knockcore.Reason
	}{
		{name: "good", padded: pad(good)},
		{name: "padding 0", padded: lastByte(pad(good), 0), want: knockcore.ReasonAuthFailed},
		{name: "padding 17", padded: lastByte(pad(good), 17), want: knockcore.ReasonAuthFailed},
		{name: "padding 255", padded: lastByte(pad(good), 255), want: knockcore.ReasonAuthFailed},
		{name: "padding too long", padded: lastByte(pad(good), byte(aes.BlockSize-len(good)%aes.BlockSize)+1), want: knockcore.ReasonAuthFailed},
		{name: "two blocks of padding", padded: append(pad(good), bytes.Repeat([]byte{16}, 16)...), want: knockcore.ReasonAuthFailed},
		{name: "only padding", padded: bytes.Repeat([]byte{16}, 96), want: knockcore.ReasonAuthFailed},
		{name: "text too short", padded: append([]byte("0123456789012345:"+strings.Repeat("a", 18)), bytes.Repeat([]byte{13}, 13)...), want: knockcore.ReasonMalformed},
		{name: "no digest", padded: pad(enc), want: knockcore.ReasonAuthFailed},
		{name: "no colon after the digits", padded: pad(strings.Replace(good, ":", "-", 1)), want: knockcore.ReasonAuthFailed},
		{name: "digest of another text", padded: pad(strings.Replace(good, "3.0.0", "3.0.1", 1)), want: knockcore.ReasonAuthFailed},
		{name: "byte above 0x7e", padded: pad(sha256Text(enc + ":\x7f")), want: knockcore.ReasonAuthFailed},
		{name: "newline", padded: pad(sha256Text(enc + "\n")), want: knockcore.ReasonAuthFailed},
		{name: "field syntax", padded: pad(sha256Text(strings.Replace(enc, "1795219350", "-795219350", 1))), want: knockcore.ReasonMalformed},
		{name: "signed spare bits", padded: pad(good), respell: func(b []byte) { b[len(b)-1]++ }, want: knockcore.ReasonMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.respell == nil {
				test.respell = func([]byte) {}
			}
			f, client, err := set.Open(fwknopAround(t, keys, test.padded, test.respell))
			if knockcore.ReasonOf(err) != test.want || (f != nil) != (test.want == knockcore.ReasonNone) || (client != nil) != (f != nil) {
				t.Fatalf("%+v, %v, want %v", f, err, test.want)
			}
			if refusal := (*knockcore.Refusal)(nil); errors.As(err, &refusal) && refusal.Client != "c00000" {
				t.Errorf("the refusal names %q", refusal.Client)
			}
		})
	}
}
