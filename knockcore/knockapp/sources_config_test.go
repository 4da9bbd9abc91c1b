// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// TestSourceErrors loads sources and keys that must be refused.
func TestSourceErrors(t *testing.T) {
	key := `"sixteen bytes or more"`
	for name, c := range map[string]struct{ lines, want string }{
		"no port":              {"source udp 127.0.0.1", `Caddyfile:4: expect :62201`},
		"port 0":               {"source udp :0", `Caddyfile:4: expect :62201`},
		"host name":            {"source udp localhost:1", `Caddyfile:4: expect :62201`},
		"mapped":               {"source udp [::ffff:192.0.2.1]:1", `Caddyfile:4: expect :62201`},
		"unknown source":       {"source pigeon", `Caddyfile:4: no source "pigeon" in this Caddy`},
		"unknown option":       {"source udp {\n verdict drop\n}", `Caddyfile:5: unknown option "verdict"; expect methods`},
		"bad method":           {"source udp {\n methods smoke\n}", `Caddyfile:5: unknown method`},
		"other method":         {"source udp {\n methods tcp-syn\n}", `method tcp-syn does not arrive here; expect udp, udp-seq, pyknock, fwknop`},
		"method off":           {"methods http\nsource udp {\n methods udp\n}", `method udp is not among the methods that are enabled`},
		"all methods off":      {"methods http\nsource udp", `none of [udp udp-seq pyknock fwknop] is among`},
		"twice":                {"source udp :7\nsource udp 192.0.2.1:7", `source 192.0.2.1:7 would get the packets of source :7`},
		"twice in one":         {"source udp 0.0.0.0:7 :7", `source :7 would get the packets of source 0.0.0.0:7`},
		"sequence too long":    {"source udp {\n sequence 9\n}", `Caddyfile:5: from 2 to 8`},
		"sequence in words":    {"source udp {\n sequence 3x\n}", `Caddyfile:5: from 2 to 8`},
		"sequence window":      {"source udp {\n sequence 3 soon\n}", `Caddyfile:5: positive duration`},
		"frame too big":        {"source udp {\n max_frame 5000\n}", `2048 bytes at most`},
		"no such service":      {"source udp {\n pyknock_services ftp\n}", `there is no service "ftp"`},
		"negative":             {"source udp {\n queue -1\n}", `Caddyfile:5: positive whole number`},
		"nflog: argument":      {"source nflog eth0", `Caddyfile:4: takes no argument`},
		"nflog: group":         {"source nflog {\n group 65536\n}", `Caddyfile:5: not a number from 0 to 65535`},
		"nflog: table":         {"source nflog {\n table \"a b\"\n}", `Caddyfile:5: expect a letter`},
		"nflog: unknown":       {"source nflog {\n iface eth0\n}", `Caddyfile:5: unknown option "iface"; expect ports`},
		"nflog: no port":       {"source nflog {\n methods udp-passive\n}", "method udp-passive needs a port to which the datagrams go: add `ports udp/62202`"},
		"nflog: drop what":     {"source nflog {\n drop\n}", "drop concerns the ports"},
		"packet: tcp port":     {"source packet {\n ports tcp/22\n}", "only udp ports are listed here"},
		"packet: interface":    {"source packet {\n ports udp/1\n interfaces a*b\n}", `Caddyfile:6: expect the name of a device`},
		"packet: target":       {"source packet {\n ports udp/1\n target here\n}", `Caddyfile:6: target`},
		"packet: slot":         {"source packet {\n ports udp/1\n syn_slot 1500ms\n}", `Caddyfile:6: whole seconds`},
		"packet: method":       {"source packet {\n ports udp/1\n methods udp\n}", `method udp does not arrive here; expect udp-passive`},
		"packet: parts":        {"source packet {\n methods tcp-syn-seq\n sequence 6\n}", `2 to 5 parts, not 6`},
		"passive twice":        {"source packet\nsource nflog", `source nflog 62201 would get the packets of source packet`},
		"passive and socket":   {"source udp :7 {\n methods fwknop\n}\nsource nflog {\n ports udp/7\n methods fwknop\n}", `source nflog 62201 would get the packets of source :7`},
		"packet: same twice":   {"source packet {\n methods tcp-syn\n}\nsource packet {\n methods tcp-syn-seq\n}", `would get the packets of source packet`},
		"short pyknock key":    {"client a {\n pyknock short\n}", "Caddyfile:5: `allow_weak`"},
		"wide pyknock key":     {"client a {\n pyknock ключключключключключ\n}", "Caddyfile:5: latin-1"},
		"no pyknock key":       {"client a {\n pyknock\n}", "Caddyfile:5: at least one argument"},
		"empty pyknock key":    {"client a {\n pyknock \"\"\n allow_weak\n}", "Caddyfile:5: empty"},
		"same pyknock key":     {"client a {\n pyknock " + key + "\n}\nclient b {\n pyknock " + key + "\n}", "clients a and b have the same pyknock key"},
		"one fwknop key":       {"client a {\n fwknop " + key + "\n}", "Caddyfile:5: takes an encryption key, an HMAC key"},
		"short fwknop key":     {"client a {\n fwknop short " + key + "\n}", "Caddyfile:5: `allow_weak`"},
		"long fwknop key":      {"client a {\n fwknop \"" + strings.Repeat("k", 33) + "\" " + key + "\n}", "Caddyfile:5: it must have 1 to 32"},
		"equal fwknop keys":    {"client a {\n fwknop " + key + " " + key + "\n}", "Caddyfile:5: must not be the same"},
		"unknown HMAC":         {"client a {\n fwknop \"0123456789abcdef\" " + key + " crc32\n}", "Caddyfile:5: expect md5"},
		"unknown HMAC, hidden": {"client a {\n fwknop {env.A} {env.B} crc32\n}", "Caddyfile:5: expect md5"},
		"weak after all":       {"client a {\n pyknock short\n expires 2099-01-01\n}", "Caddyfile:5: `allow_weak`"},
		"remote in words":      {"client a {\n allow_remote yes\n}", "Caddyfile:5: length of a prefix"},
		"remote without slash": {"client a {\n allow_remote 24\n}", "Caddyfile:5: length of a prefix"},
		"remote: everything":   {"client a {\n allow_remote /0\n}", "Caddyfile:5: length of a prefix"},
		"remote: order":        {"client a {\n allow_remote /64 /24\n}", "Caddyfile:5: such as `allow_remote /24 /64`"},
		"remote: none":         {"client a {\n allow_remote\n}", "Caddyfile:5: such as `allow_remote /24 /64`"},
		"unset placeholder":    {"client a {\n pyknock {env.KNOCK_TEST_NOT_SET}\n}", "Caddyfile:4: KNOCK_TEST_NOT_SET is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			err := apptest.TryLoad(t, "{\n\tadmin off\n\tknock {\n"+c.lines+"\nservice s tcp/1\nstore memory\n\t}\n}\n")
			if err == nil {
				t.Fatal("was loaded")
			}
			place, text, placed := strings.Cut(c.want, ": ")
			if !placed || !strings.HasPrefix(place, "Caddyfile") {
				place, text = "", c.want
			}
			if !strings.Contains(err.Error(), place) || !strings.Contains(err.Error(), text) {
				t.Errorf("got  %v\nwant %s … %s", err, place, text)
			}
			if strings.Contains(err.Error(), "sixteen") {
				t.Error("the message tells the key")
			}
		})
	}
}

func TestDatagramKeysOfAClient(t *testing.T) {
	t.Setenv("KNOCK_TEST_PSK", "clé de pyknock à seize")
	apptest.Load(t, `{
	admin off
	knock {
		client alice {
			pyknock {env.KNOCK_TEST_PSK} short
			fwknop base64:MDEyMzQ1Njc4OWFiY2RlZg== hex:00112233445566778899aabbccddeeff sha512
			fwknop tiny "another tiny"
			allow_remote /24 /64
			allow_weak
		}
		client bob {
			allow_remote /64
		}
		client carol {
			allow_remote /32
		}
		store memory
	}
}
`)
	ring := apptest.App(t).Running().Keyring()
	alice := ring.Client("alice")
	if len(alice.Pyknock) != 2 || string(alice.Pyknock[0].Bytes()) != "cl\xe9 de pyknock \xe0 seize" {
		t.Error("the pyknock key was not read as latin-1")
	}
	if len(alice.Fwknop) != 2 || alice.Fwknop[0].HMACType != "sha512" || string(alice.Fwknop[0].Encryption.Bytes()) != "0123456789abcdef" ||
		!bytes.Equal(alice.Fwknop[0].HMAC.Bytes(), []byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff")) {
		t.Error("the fwknop keys were not read")
	}
	for id, want := range map[string][2]int{"alice": {24, 64}, "bob": {0, 64}, "carol": {32, 0}} {
		if c := ring.Client(id); c.RemoteBits4 != want[0] || c.RemoteBits6 != want[1] {
			t.Errorf("%s may knock for /%d and /%d, want %v", id, c.RemoteBits4, c.RemoteBits6, want)
		}
	}
	for _, b := range []string{fmt.Sprintf("%+v", alice), fmt.Sprintf("%#v", alice)} {
		if strings.Contains(b, "0123456789abcdef") || strings.Contains(b, "pyknock à") {
			t.Error("a key shows")
		}
	}
}
