// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func portText(n uint16) string { return strconv.Itoa(int(n)) }

func equalFwknop(a, b *Fwknop) bool { return reflect.DeepEqual(a, b) }

// refusedByPolicy models what a server does after OpenFwknop (section 3 steps 7
// and 8), and returns the stage that refuses.
func (v *fwknopVector) refusedByPolicy(t *testing.T, f *Fwknop) string {
	t.Helper()
	asked := func(ports []string) (hits int) {
		for _, p := range f.Ports {
			if slices.Contains(ports, p.String()) {
				hits++
			}
		}
		return hits
	}
	id := sha256.Sum256(v.packet(t))
	age := time.Unix(v.Now, 0).Sub(f.Timestamp()).Abs()
	p := &v.Policy
	switch {
	case slices.Contains(p.SeenPackets, base64.RawStdEncoding.EncodeToString(id[:])):
		return "replay"
	case age > 120*time.Second:
		return "age"
	case p.RequireSource && f.Allow.IsUnspecified(),
		p.RequireUsername != "" && f.User != p.RequireUsername,
		f.Type == FwknopCommand && (p.EnableCmdExec == nil || !*p.EnableCmdExec),
		asked(p.RestrictPorts) > 0,
		p.OpenPorts != nil && asked(p.OpenPorts) < len(f.Ports):
		return "policy"
	}
	return ""
}

func fwknopVectorNamed(tb testing.TB, name string) *fwknopVector {
	tb.Helper()
	for _, v := range readFwknopVectors(tb) {
		if v.Name == name {
			return &v
		}
	}
	tb.Fatalf("vector %s is missing", name)
	return nil
}

func fwknopRing(tb testing.TB, pairs ...knockcore.FwknopKeys) *FwknopKeys {
	tb.Helper()
	var clients []*knockcore.Client
	for i, pair := range pairs {
		clients = append(clients, &knockcore.Client{ID: fmt.Sprintf("c%05d", i), Fwknop: []knockcore.FwknopKeys{pair}})
	}
	ring, err := knockcore.NewKeyring(clients)
	if err != nil {
		tb.Fatal(err)
	}
	return NewFwknopKeys(ring)
}

// TestFwknopManyClients opens every packet with the key pairs of all vectors at
// once, of all HMAC types, among them pairs of which only the HMAC key is right.
func TestFwknopManyClients(t *testing.T) {
	var pairs []knockcore.FwknopKeys
	vectors := readFwknopVectors(t)
	for _, v := range vectors {
		pair := v.keys(t)
		if ValidateFwknopKeys(pair) != nil || slices.ContainsFunc(pairs, func(o knockcore.FwknopKeys) bool {
			return o.Encryption.Equal(pair.Encryption) && o.HMAC.Equal(pair.HMAC) && o.HMACType == pair.HMACType
		}) {
			continue
		}
		pairs = append(pairs, pair)
	}
	for _, pair := range slices.Clone(pairs) {
		pair.Encryption = knockcore.NewSecret([]byte("another key of 32 bytes, wrong  "))
		pairs = slices.Insert(pairs, 0, pair)
	}
	set := fwknopRing(t, pairs...)
	if set.Len() != len(pairs) {
		t.Fatalf("%d of %d pairs", set.Len(), len(pairs))
	}
	for _, v := range vectors {
		if v.Kind != "positive" || v.HMACType == "" {
			continue
		}
		want, wantErr := OpenFwknop(v.keys(t), v.packet(t))
		f, client, err := set.Open(v.packet(t))
		if knockcore.ReasonOf(err) != knockcore.ReasonOf(wantErr) || !equalFwknop(f, want) || (client == nil) != (f == nil) {
			t.Errorf("%s: %+v of %v, %v", v.Name, f, client, err)
			continue
		}
		if client != nil && !client.Fwknop[0].Encryption.Equal(v.keys(t).Encryption) {
			t.Errorf("%s is taken for the packet of %s", v.Name, client.ID)
		}
		if refusal := (*knockcore.Refusal)(nil); err != nil && (!errors.As(err, &refusal) || refusal.Client == "") {
			t.Errorf("%s: the refusal of an authentic packet names nobody: %v", v.Name, err)
		}
	}
}

// TestFwknopReencoded: other spellings of an accepted packet are refused, so
// that none of them gets around the replay guard.
func TestFwknopReencoded(t *testing.T) {
	for _, v := range readFwknopVectors(t) {
		if v.Kind != "positive" || v.HMACType == "" || v.Mode != "cbc" || v.Fields.Type == FwknopCommand {
			continue
		}
		b, keys := v.packet(t), v.keys(t)
		macLen := fwknopDigests[findFwknopDigest(v.HMACType)].textLen()
		spellings := map[string][]byte{
			"padded":             append(slices.Clone(b), '='),
			"padded twice":       append(slices.Clone(b), "=="...),
			"newline":            append(slices.Clone(b), '\n'),
			"NUL":                append(slices.Clone(b), 0),
			"newline within":     slices.Insert(slices.Clone(b), 100, '\n'),
			"CR before the HMAC": slices.Insert(slices.Clone(b), len(b)-macLen, '\r'),
			"prefix kept":        append([]byte(fwknopPrefix), b...),
			"HMAC padded":        slices.Insert(slices.Clone(b), len(b)-macLen, '='),
		}
		// Every bit of the characters at the two seams, which have spare bits, and
		// of the first.
		for _, at := range []int{0, len(b) - macLen - 1, len(b) - macLen, len(b) - 1} {
			const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
			for bit := range 6 {
				other := slices.Clone(b)
				other[at] = alphabet[strings.IndexByte(alphabet, b[at])^1<<bit]
				spellings[fmt.Sprintf("bit %d of character %d", bit, at)] = other
			}
		}
		for what, other := range spellings {
			if f, err := OpenFwknop(keys, other); f != nil || err == nil {
				t.Errorf("%s, %s: accepted", v.Name, what)
			}
		}
	}
}

func TestFwknopCanonical(t *testing.T) {
	v := fwknopVectorNamed(t, "p01-sha256-tcp22")
	raw, err := base64.RawStdEncoding.DecodeString(fwknopPrefix + v.Packet[:len(v.Packet)-43])
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenFwknop(v.keys(t), v.packet(t))
	if err != nil || f.Canonical != sha256.Sum256(raw[8:]) {
		t.Errorf("canonical form: %v", err)
	}
	if f.ReplayKey("a") == f.ReplayKey("b") || f.ReplayKey("a") != knockcore.NewReplayKey(knockcore.ReplayFwknop, "a", f.Canonical[:]) {
		t.Error("the replay key is not that of client and canonical form")
	}
}

func TestValidateFwknopKeys(t *testing.T) {
	key := func(n int, c string) knockcore.Secret { return knockcore.NewSecret(bytes.Repeat([]byte(c), n)) }
	for _, test := range []struct {
		enc, mac knockcore.Secret
		hmacType string
		ok, weak bool
	}{
		{key(32, "e"), key(64, "m"), "", true, false},
		{key(1, "e"), key(1, "m"), "md5", true, true},
		{key(16, "e"), key(128, "m"), "sha3_512", true, false},
		{key(16, "e"), key(15, "m"), "sha512", true, true},
		{key(15, "e"), key(16, "m"), "sha3_256", true, true},
		{key(0, "e"), key(64, "m"), "", false, true},
		{key(33, "e"), key(64, "m"), "", false, false},
		{key(32, "e"), key(0, "m"), "", false, true},
		{key(32, "e"), key(129, "m"), "", false, false},
		{key(32, "e"), key(32, "e"), "", false, false},
		{key(32, "e"), key(64, "m"), "SHA256", false, false},
		{key(32, "e"), key(64, "m"), "crc32", false, false},
	} {
		pair := knockcore.FwknopKeys{Encryption: test.enc, HMAC: test.mac, HMACType: test.hmacType}
		if err := ValidateFwknopKeys(pair); (err == nil) != test.ok {
			t.Errorf("%d, %d bytes, %q: %v", test.enc.Len(), test.mac.Len(), test.hmacType, err)
		}
		if WeakFwknopKeys(pair) != test.weak {
			t.Errorf("%d, %d bytes: weak is not %v", test.enc.Len(), test.mac.Len(), test.weak)
		}
		if !test.ok && fwknopRing(t, pair).Len() != 0 {
			t.Errorf("%d, %d bytes, %q: prepared nevertheless", test.enc.Len(), test.mac.Len(), test.hmacType)
		}
	}
}

func TestParseFwknopKey(t *testing.T) {
	for text, want := range map[string]string{"base64:AAEC": "\x00\x01\x02", "hex:ff00": "\xff\x00", "a text": "a text"} {
		if key, err := ParseFwknopKey(text); err != nil || string(key.Bytes()) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := ParseFwknopKey("base64:S3cr3t!"); err == nil || strings.Contains(err.Error(), "S3cr3t") {
		t.Errorf("got %v", err)
	}
}

func TestFwknopKeysCannotBePrinted(t *testing.T) {
	v := fwknopVectorNamed(t, "p01-sha256-tcp22")
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%x"} {
		if s := fmt.Sprintf(verb, fwknopRing(t, v.keys(t))); s != "[1 fwknop key pairs]" {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}

var (
	peerAddr   = netip.MustParseAddr("203.0.113.7")
	peerSource = netip.IPv4Unspecified()
)
