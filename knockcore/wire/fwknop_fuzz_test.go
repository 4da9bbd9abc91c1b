// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func FuzzOpenFwknop(f *testing.F) {
	for _, v := range readFwknopVectors(f) {
		keys := v.keys(f)
		f.Add(v.packet(f), keys.Encryption.Bytes(), keys.HMAC.Bytes(), v.HMACType)
	}
	f.Fuzz(func(t *testing.T, b, encryption, mac []byte, hmacType string) {
		keys := knockcore.FwknopKeys{Encryption: knockcore.NewSecret(encryption), HMAC: knockcore.NewSecret(mac), HMACType: hmacType}
		before := slices.Clone(b)
		got, err := OpenFwknop(keys, b)
		if string(b) != string(before) {
			t.Fatal("the packet was changed")
		}
		checkFwknopResult(t, got, err)
		if got != nil && !LooksLikeFwknop(b) {
			t.Fatal("accepted what does not look like a packet")
		}
	})
}

func checkFwknopResult(t *testing.T, got *Fwknop, err error) {
	t.Helper()
	reason := knockcore.ReasonOf(err)
	if reason == knockcore.ReasonStoreError {
		t.Fatalf("no reason: %v", err)
	}
	if (got == nil) != (err != nil) && (got == nil || got.Type != FwknopCommand || reason != knockcore.ReasonUnsupported) {
		t.Fatalf("%+v, %v", got, err)
	}
}

// FuzzFwknopPlaintext fuzzes what an attacker reaches who holds the keys: the
// decrypted text, with and without a digest that fits.
func FuzzFwknopPlaintext(f *testing.F) {
	for _, v := range readFwknopVectors(f) {
		keys := v.keys(f)
		if ValidateFwknopKeys(keys) != nil || !LooksLikeFwknop(v.packet(f)) {
			continue
		}
		body := fwknopPrefix + v.Packet[:len(v.Packet)-fwknopDigests[findFwknopDigest(v.HMACType)].textLen()]
		raw, err := fwknopBase64.DecodeString(body)
		if err != nil {
			continue
		}
		if plain, err := fwknopDecrypt(keys.Encryption, raw); err == nil {
			f.Add(string(plain))
			f.Add(string(plain[:strings.LastIndexByte(string(plain), ':')]))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFwknopPlain([]byte(text))
		checkFwknopResult(t, got, err)

		if got, err = parseFwknopFields(text); got == nil {
			checkFwknopResult(t, got, err)
		} else if strings.IndexFunc(text, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0 {
			checkFwknopSpelling(t, got)
		}
		for i := range fwknopDigests {
			got, err := parseFwknopPlain([]byte(text + ":" + fwknopDigests[i].sumText([]byte(text))))
			checkFwknopResult(t, got, err)
			if got != nil && got.DigestType != fwknopDigests[i].name {
				t.Fatalf("digest %s is read as %s", fwknopDigests[i].name, got.DigestType)
			}
		}
	})
}

// checkFwknopSpelling: writing what was read and reading that gives the same.
func checkFwknopSpelling(t *testing.T, f *Fwknop) {
	t.Helper()
	text, err := f.encodeFields()
	if err != nil {
		t.Fatalf("%+v was read, but cannot be written: %v", f, err)
	}
	again, _ := parseFwknopFields(string(text))
	if !equalFwknop(f, again) {
		t.Fatalf("read %+v, then %+v", f, again)
	}
}

func FuzzFwknopRoundTrip(f *testing.F) {
	for _, v := range readFwknopVectors(f) {
		if v.Kind != "positive" {
			continue
		}
		keys, want := v.keys(f), v.want()
		addr := want.Allow.As4()
		var port uint16
		if len(want.Ports) > 0 {
			port = want.Ports[0].Low
		}
		f.Add(want.Rand, want.User, want.Time, want.Version, want.Type, addr[:], port, uint8(len(want.Ports)), want.NAT,
			want.ServerAuth, uint32(v.Fields.Timeout), want.Command, uint8(0), uint8(1), keys.Encryption.Bytes(), keys.HMAC.Bytes())
	}
	f.Fuzz(func(t *testing.T, random, user string, sent int64, version string, msgType int, addr []byte, port uint16, ports uint8,
		nat, auth string, timeout uint32, command string, digest, hmacType uint8, encryption, mac []byte,
	) {
		p := Fwknop{
			Rand: random, User: user, Time: sent, Version: version, Type: msgType, NAT: nat, ServerAuth: auth,
			Timeout: time.Duration(timeout) * time.Second, Command: command,
			DigestType: fwknopDigests[int(digest)%len(fwknopDigests)].name,
		}
		p.Allow, _ = netip.AddrFromSlice(addr)
		for i := range ports % 16 {
			proto := knockcore.TCP
			if i%2 == 1 {
				proto = knockcore.UDP
			}
			p.Ports = append(p.Ports, knockcore.PortRange{Protocol: proto, Low: port, High: port})
		}
		keys := knockcore.FwknopKeys{
			Encryption: knockcore.NewSecret(encryption), HMAC: knockcore.NewSecret(mac),
			HMACType: fwknopDigests[int(hmacType)%len(fwknopDigests)].name,
		}
		b, err := p.Seal(keys)
		if err != nil {
			return
		}
		if !LooksLikeFwknop(b) {
			t.Fatalf("sealed %q, which does not look like a packet", b)
		}
		got, err := OpenFwknop(keys, b)
		checkFwknopResult(t, got, err)
		if got == nil {
			t.Fatalf("%+v was sealed, but cannot be opened: %v", p, err)
		}
		if p.Rand == "" {
			p.Rand = got.Rand
		}
		if p.Version == "" {
			p.Version = "3.0.0"
		}
		p.Canonical = got.Canonical
		if !equalFwknop(got, &p) {
			t.Fatalf("sealed %+v, opened %+v", p, *got)
		}
	})
}
