// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func b64(s string) string { return encodeFwknopText(s) }

func TestParseFwknopFields(t *testing.T) {
	const head = "0123456789012345:YWxpY2U:1795219350:3.0.0:"
	access := b64("203.0.113.7,tcp/22")
	with := func(i int, value string) string {
		field := strings.Split(head+"1:"+access, ":")
		field[i] = value
		return strings.Join(field, ":")
	}
	message := func(s string) string { return with(5, b64(s)) }
	nat := func(s string) string { return head + "2:" + access + ":" + b64(s) }
	const (
		ok          = knockcore.ReasonNone
		malformed   = knockcore.ReasonMalformed
		unsupported = knockcore.ReasonUnsupported
	)
	for _, test := range []struct {
		name, text string
		want       knockcore.Reason
	}{
		{"access", head + "1:" + access, ok},
		{"type with a leading zero", head + "01:" + access, ok},
		{"access, server auth", head + "1:" + access + ":eA", ok},
		{"server auth empty", head + "1:" + access + ":", malformed},
		{"server auth not base64", head + "1:" + access + ":e", malformed},
		{"server auth with spare bits", head + "1:" + access + ":eB", malformed},
		{"one field too many", head + "1:" + access + ":eA:eA", malformed},
		{"no message", head + "1", malformed},
		{"nothing", "", malformed},

		{"random value short", with(0, "012345678901234"), malformed},
		{"random value with a sign", with(0, "+123456789012345"), malformed},
		{"user empty", with(1, ""), malformed},
		{"user padded", with(1, "YWxpY2U="), malformed},
		{"user of 48", with(1, b64(strings.Repeat("u", 48))), ok},
		{"user of 49", with(1, b64(strings.Repeat("u", 49))), malformed},
		{"user with newline", with(1, b64("a\nb")), malformed},
		{"user not ASCII", with(1, b64("clé")), malformed},
		{"user with newline in the base64", with(1, "YWxp\nY2U"), malformed},
		{"time empty", with(2, ""), malformed},
		{"time negative", with(2, "-1"), malformed},
		{"time with a fraction", with(2, "1.5"), malformed},
		{"time after 2038", with(2, "2147483648"), ok},
		{"time of 12 digits", with(2, "999999999999"), ok},
		{"time of 13 digits", with(2, "1000000000000"), malformed},
		{"version empty", with(3, ""), malformed},
		{"version of 8", with(3, "12345678"), ok},
		{"version of 9", with(3, "123456789"), malformed},
		{"type empty", with(4, ""), malformed},
		{"type 7", with(4, "7"), unsupported},
		{"type 99", with(4, "99"), unsupported},
		{"type of 3 digits", with(4, "001"), malformed},
		{"type a letter", with(4, "a"), malformed},
		{"command", head + "0:" + b64("0.0.0.0,id"), unsupported},
		{"command empty", head + "0:" + b64("0.0.0.0,"), malformed},

		{"message too long", message("203.0.113.7,tcp/22" + strings.Repeat(",tcp/22", 26)), malformed},
		{"message without address", message("tcp/22"), malformed},
		{"address with leading zero", message("010.1.2.3,tcp/22"), malformed},
		{"address of three parts", message("10.1.3,tcp/22"), malformed},
		{"address in hexadecimal", message("0x7f.1.1.1,tcp/22"), malformed},
		{"IPv6", message("2001:db8::7,tcp/22"), unsupported},
		{"IPv4-mapped", message("::ffff:192.0.2.1,tcp/22"), unsupported},
		{"IPv6 with zone", message("fe80::1%eth0,tcp/22"), unsupported},
		{"several ports", message("203.0.113.7,tcp/22,udp/53,tcp/65535"), ok},
		{"port range", message("203.0.113.7,tcp/22-25"), malformed},
		{"port alone", message("203.0.113.7,22"), unsupported},
		{"port with leading zero", message("203.0.113.7,tcp/022"), malformed},
		{"port with sign", message("203.0.113.7,tcp/+22"), malformed},
		{"port with blank", message("203.0.113.7,tcp/ 22"), malformed},
		{"port missing", message("203.0.113.7,tcp/"), malformed},
		{"port twice", message("203.0.113.7,tcp/22/23"), malformed},
		{"comma at the end", message("203.0.113.7,tcp/22,"), unsupported},
		{"upper case", message("203.0.113.7,TCP/22"), unsupported},
		{"NUL", message("203.0.113.7,tcp/22\x00"), malformed},

		{"NAT", nat("10.0.0.5,22"), ok},
		{"NAT, host name", nat("web.internal,8443"), ok},
		{"NAT missing", head + "2:" + access, malformed},
		{"NAT without host", nat(",22"), malformed},
		{"NAT without port", nat("10.0.0.5"), malformed},
		{"NAT with a path", nat("a/b,22"), malformed},
		{"NAT with a control character", nat("a\tb,22"), malformed},
		{"NAT where there is none", head + "1:" + access + ":" + b64("10.0.0.5,22") + ":60", malformed},
		{"timeout", head + "3:" + access + ":60", ok},
		{"timeout 0", head + "3:" + access + ":0", ok},
		{"timeout, server auth", head + "3:" + access + ":eA:60", ok},
		{"timeout missing", head + "3:" + access, malformed},
		{"timeout empty", head + "3:" + access + ":", malformed},
		{"timeout longest", head + "3:" + access + ":65536", ok},
		{"timeout too long", head + "3:" + access + ":65537", malformed},
		{"timeout negative", head + "3:" + access + ":-1", malformed},
		{"NAT, timeout", head + "4:" + access + ":" + b64("h,1") + ":60", ok},
		{"NAT, server auth, timeout", head + "6:" + access + ":" + b64("h,1") + ":eA:60", ok},
		{"NAT, timeout, more", head + "6:" + access + ":" + b64("h,1") + ":eA:60:60", malformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := parseFwknopFields(test.text)
			if got := knockcore.ReasonOf(err); got != test.want {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if command := f != nil && f.Type == FwknopCommand; (f != nil) != (test.want == ok || command) {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestFwknopSealErrors(t *testing.T) {
	keys := fwknopVectorNamed(t, "p01-sha256-tcp22").keys(t)
	good := func() *Fwknop {
		return &Fwknop{User: "alice", Time: 1795219350, Type: FwknopAccess, Allow: peerAddr, Ports: fwknopPorts("tcp/22")}
	}
	if _, err := good().Seal(keys); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Fwknop){
		"random value":      func(f *Fwknop) { f.Rand = "123" },
		"no user":           func(f *Fwknop) { f.User = "" },
		"user":              func(f *Fwknop) { f.User = "a:b" },
		"negative time":     func(f *Fwknop) { f.Time = -1 },
		"version":           func(f *Fwknop) { f.Version = "3:0" },
		"long version":      func(f *Fwknop) { f.Version = "3.0.0.0.0" },
		"type":              func(f *Fwknop) { f.Type = 7 },
		"negative type":     func(f *Fwknop) { f.Type = -1 },
		"no address":        func(f *Fwknop) { f.Allow = netip.Addr{} },
		"IPv6":              func(f *Fwknop) { f.Allow = netip.MustParseAddr("2001:db8::7") },
		"no port":           func(f *Fwknop) { f.Ports = nil },
		"range":             func(f *Fwknop) { f.Ports = fwknopPorts("tcp/22-23") },
		"any protocol":      func(f *Fwknop) { f.Ports = []knockcore.PortRange{{Low: 22, High: 22}} },
		"port 0":            func(f *Fwknop) { f.Ports = []knockcore.PortRange{{Protocol: knockcore.TCP}} },
		"too many ports":    func(f *Fwknop) { f.Ports = fwknopPorts(strings.Fields(strings.Repeat("tcp/22222 ", 14))...) },
		"NAT unasked":       func(f *Fwknop) { f.NAT = "10.0.0.5,22" },
		"timeout unasked":   func(f *Fwknop) { f.Timeout = time.Minute },
		"NAT missing":       func(f *Fwknop) { f.Type = FwknopNATAccess },
		"NAT malformed":     func(f *Fwknop) { f.Type, f.NAT = FwknopNATAccess, "10.0.0.5:22" },
		"timeout too long":  func(f *Fwknop) { f.Type, f.Timeout = FwknopAccessTimeout, FwknopMaxTimeout+time.Second },
		"timeout fraction":  func(f *Fwknop) { f.Type, f.Timeout = FwknopAccessTimeout, 1500*time.Millisecond },
		"negative timeout":  func(f *Fwknop) { f.Type, f.Timeout = FwknopAccessTimeout, -time.Second },
		"command unasked":   func(f *Fwknop) { f.Command = "id" },
		"command and ports": func(f *Fwknop) { f.Type, f.Command = FwknopCommand, "id" },
		"digest":            func(f *Fwknop) { f.DigestType = "crc32" },
	} {
		f := good()
		change(f)
		if packet, err := f.Seal(keys); err == nil {
			t.Errorf("%s: sealed as %s", name, packet)
		}
	}
	keys.HMAC = knockcore.Secret{}
	if _, err := good().Seal(keys); err == nil {
		t.Error("sealed without HMAC key")
	}
}

// TestFwknopRandom: Seal draws salt and random value anew.
func TestFwknopRandom(t *testing.T) {
	keys := fwknopVectorNamed(t, "p01-sha256-tcp22").keys(t)
	seen := map[string]bool{}
	for range 100 {
		f := Fwknop{User: "alice", Type: FwknopAccess, Allow: peerAddr, Ports: fwknopPorts("tcp/22")}
		b, err := f.Seal(keys)
		if err != nil {
			t.Fatal(err)
		}
		got, err := OpenFwknop(keys, b)
		if err != nil || got.Version != "3.0.0" || got.DigestType != "sha256" {
			t.Fatalf("%+v, %v", got, err)
		}
		if seen[got.Rand] || seen[string(b[:10])] {
			t.Fatal("drawn twice")
		}
		seen[got.Rand], seen[string(b[:10])] = true, true
	}
}

func fwknopPorts(list ...string) (ranges []knockcore.PortRange) {
	for _, s := range list {
		r, err := knockcore.ParsePortRange(s)
		if err != nil {
			panic(err)
		}
		ranges = append(ranges, r)
	}
	return ranges
}
