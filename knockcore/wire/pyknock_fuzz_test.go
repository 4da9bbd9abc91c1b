// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"math"
	"net/netip"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func FuzzOpenPyknock(f *testing.F) {
	for _, v := range readPyknockVectors(f) {
		f.Add(v.datagram(f), unhex(f, v.PSKHex), int64(v.Server.Now))
	}
	f.Fuzz(func(t *testing.T, b, psk []byte, sec int64) {
		now, key := time.Unix(sec, 0), knockcore.NewSecret(psk)
		p, err := OpenPyknock(now, 0, key, b)
		if (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if err != nil {
			if knockcore.ReasonOf(err) == knockcore.ReasonStoreError {
				t.Fatalf("no reason: %v", err)
			}
			return
		}
		if again, err := p.Seal(key); err != nil || string(again) != string(b) {
			t.Fatalf("%x is accepted, but sealed again it is %x, %v", b, again, err)
		}
	})
}

// FuzzPyknockRoundTrip also signs whatever the fuzzer makes up, so that it gets
// beyond the HMAC.
func FuzzPyknockRoundTrip(f *testing.F) {
	for _, v := range readPyknockVectors(f) {
		if b := v.datagram(f); LooksLikePyknock(b) {
			f.Add(v.Fields.Opcode == 2, floatOrZero(v.Fields.Timestamp), v.Fields.AF, b[pyknockAddr:], unhex(f, v.PSKHex))
		}
	}
	f.Fuzz(func(t *testing.T, closes bool, sent float64, family int32, address, psk []byte) {
		addr, _ := netip.AddrFromSlice(address)
		p, key := Pyknock{Close: closes, Time: sent, Family: family, Addr: addr}, knockcore.NewSecret(psk)
		b, err := p.Seal(key)
		if err != nil {
			return
		}
		if !LooksLikePyknock(b) {
			t.Fatalf("sealed %d bytes", len(b))
		}
		if math.Abs(sent) > 1e11 {
			return // beyond what a time.Time in nanoseconds keeps apart
		}
		got, err := OpenPyknock(p.Timestamp(), 0, key, b)
		if err != nil {
			t.Fatal(err)
		}
		if p.Family == 0 {
			p.Family = got.Family
		}
		p.MAC = got.MAC
		if *got != p {
			t.Fatalf("sealed %+v, opened %+v", p, *got)
		}
	})
}

func floatOrZero(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return f
}

// pyknockScript builds a datagram as section 1 of the description says, with
// nothing in common with our code.
const pyknockScript = `
import hashlib, hmac, ipaddress, struct, sys
psk, opcode, when, family, addr = sys.argv[1:]
body = struct.pack("<Bdi", int(opcode), float(when), int(family)) + ipaddress.ip_address(addr).packed
sys.stdout.write((hmac.new(psk.encode("latin-1"), body, hashlib.sha256).digest() + body).hex())
`

func TestPyknockFromPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		needPeer(t, "python3 is not installed")
	}
	now := time.Now()
	for _, test := range []struct {
		psk    string
		family int32
		addr   string
		closes bool
	}{
		{"MySecretPSK", 2, "192.0.2.10", false},
		{"p s k with blanks, longer than the block of SHA-256, which is hashed first", 2, "203.0.113.77", true},
		{"clé-ñ", 10, "2001:db8::10", false},
		{"MySecretPSK", 30, "2001:db8::10", true},
	} {
		opcode := "1"
		if test.closes {
			opcode = "2"
		}
		out, err := exec.Command(python, "-c", pyknockScript, test.psk, opcode,
			strconv.FormatFloat(PyknockTime(now), 'f', -1, 64), strconv.Itoa(int(test.family)), test.addr).Output()
		if err != nil {
			t.Fatalf("python3: %v", err)
		}
		key, err := ParsePyknockKey(test.psk)
		if err != nil {
			t.Fatal(err)
		}
		b := unhex(t, string(out))
		p, err := OpenPyknock(now, 0, key, b)
		if err != nil {
			t.Errorf("%+v: %v", test, err)
			continue
		}
		if p.Close != test.closes || p.Family != test.family || p.Addr.String() != test.addr || p.Time != PyknockTime(now) {
			t.Errorf("%+v is read as %+v", test, p)
		}
		ours := Pyknock{Close: test.closes, Time: PyknockTime(now), Family: test.family, Addr: p.Addr}
		if sealed, err := ours.Seal(key); err != nil || string(sealed) != string(b) {
			t.Errorf("%+v: we seal %x, %v; python %x", test, sealed, err, b)
		}
	}
}
