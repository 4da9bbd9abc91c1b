// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

type pyknockVector struct {
	ID, Class, Note, PSK string
	PSKHex               string `json:"psk_hex"`
	DatagramHex          string `json:"datagram_hex"`
	Fields               struct {
		MACHex    string `json:"hmac_hex"`
		Opcode    int
		Timestamp string
		AF        int32
	}
	Server struct {
		Now, Drift float64
	} `json:"pyknock_server"`
	Expect struct {
		Accept      bool
		Command, IP string
	}
}

func (v *pyknockVector) datagram(tb testing.TB) []byte { return unhex(tb, v.DatagramHex) }
func (v *pyknockVector) psk(tb testing.TB) knockcore.Secret {
	return knockcore.NewSecret(unhex(tb, v.PSKHex))
}
func (v *pyknockVector) now() time.Time { return floatTime(v.Server.Now) }
func (v *pyknockVector) window() time.Duration {
	return time.Duration(v.Server.Drift * float64(time.Second))
}

func floatTime(f float64) time.Time {
	sec, frac := math.Modf(f)
	return time.Unix(int64(sec), int64(math.Round(frac*1e9)))
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func readPyknockVectors(tb testing.TB) []pyknockVector {
	tb.Helper()
	var file struct{ Vectors []pyknockVector }
	data, err := os.ReadFile("testdata/pyknock.json")
	if err == nil {
		err = json.Unmarshal(data, &file)
	}
	if err != nil {
		tb.Fatal(err)
	}
	if len(file.Vectors) == 0 {
		tb.Fatal("no vectors")
	}
	return file.Vectors
}

func pyknockRing(tb testing.TB, psks ...knockcore.Secret) *PyknockKeys {
	tb.Helper()
	var clients []*knockcore.Client
	for i, psk := range psks {
		clients = append(clients, &knockcore.Client{ID: fmt.Sprintf("c%05d", i), Pyknock: []knockcore.Secret{psk}})
	}
	ring, err := knockcore.NewKeyring(clients)
	if err != nil {
		tb.Fatal(err)
	}
	return NewPyknockKeys(ring)
}

func TestPyknockVectors(t *testing.T) {
	other := knockcore.NewSecret([]byte("not the key of anyone"))
	seen := map[string]int{}
	for _, v := range readPyknockVectors(t) {
		seen[v.Class]++
		t.Run(v.ID, func(t *testing.T) {
			b := v.datagram(t)
			p, err := OpenPyknock(v.now(), v.window(), v.psk(t), b)
			many, client, manyErr := pyknockRing(t, other, v.psk(t)).Open(v.now(), v.window(), knockcore.NewMACScratch(), b)
			if got, want := knockcore.ReasonOf(manyErr), knockcore.ReasonOf(err); got != want {
				t.Errorf("with many keys: %v, with one: %v", got, want)
			}
			if !v.Expect.Accept {
				if p != nil || many != nil || client != nil || err == nil {
					t.Fatalf("accepted: %s", v.Note)
				}
				if want := pyknockRefusal(&v, b); knockcore.ReasonOf(err) != want {
					t.Errorf("reason %v, want %v (%s)", err, want, v.Note)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", v.Note, err)
			}
			if *p != *many || client.ID != "c00001" {
				t.Errorf("with many keys: %+v of %s", many, client.ID)
			}
			if p.Close != (v.Expect.Command == "close") || p.Addr.String() != v.Expect.IP || p.Family != v.Fields.AF ||
				fmt.Sprintf("%x", p.MAC) != v.Fields.MACHex || p.Time != floatOf(t, v.Fields.Timestamp) {
				t.Errorf("got %+v, want %+v", p, v.Fields)
			}
			if sealed, err := p.Seal(v.psk(t)); err != nil || hex.EncodeToString(sealed) != v.DatagramHex {
				t.Errorf("sealed again: %x, %v", sealed, err)
			}
		})
	}
	for _, class := range []string{"accept", "foreign_af", "drop", "kills_pyknock", "quirk_accept"} {
		if seen[class] == 0 {
			t.Errorf("no vector of class %s", class)
		}
	}
}

func floatOf(t *testing.T, s string) (f float64) {
	t.Helper()
	if _, err := fmt.Sscan(s, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// pyknockRefusal is the reason to expect of a vector that must be refused: the
// first check of section 5 that fails.
func pyknockRefusal(v *pyknockVector, b []byte) knockcore.Reason {
	var sent float64
	if v.Fields.Timestamp != "" {
		_, _ = fmt.Sscan(v.Fields.Timestamp, &sent)
	}
	switch {
	case len(b) != 49 && len(b) != 61, math.IsNaN(sent), math.IsInf(sent, 0):
		return knockcore.ReasonMalformed
	case v.Server.Now-sent > v.Server.Drift:
		return knockcore.ReasonStale
	case sent-v.Server.Now > v.Server.Drift:
		return knockcore.ReasonFuture
	case strings.Contains(v.Note, "correctly signed"):
		return knockcore.ReasonMalformed
	default:
		return knockcore.ReasonUnknownClient
	}
}

func TestPyknockSealErrors(t *testing.T) {
	for _, p := range []Pyknock{
		{},
		{Addr: netip.MustParseAddr("fe80::1%eth0")},
		{Addr: netip.MustParseAddr("192.0.2.1"), Time: math.NaN()},
		{Addr: netip.MustParseAddr("192.0.2.1"), Time: math.Inf(-1)},
		{Addr: netip.MustParseAddr("192.0.2.1"), Family: 10},
		{Addr: netip.MustParseAddr("2001:db8::1"), Family: 2},
		{Addr: netip.MustParseAddr("2001:db8::1"), Family: 99},
	} {
		if b, err := p.Seal(knockcore.NewSecret([]byte("k"))); err == nil {
			t.Errorf("%+v: sealed as %x", p, b)
		}
	}
}

func TestPyknockAuthenticRefusalNamesClient(t *testing.T) {
	psk := knockcore.NewSecret([]byte("MySecretPSK"))
	now := time.Unix(1700000000, 0)
	for _, v := range readPyknockVectors(t) {
		if v.ID != "n19" { // opcode 3, correctly signed
			continue
		}
		_, _, err := pyknockRing(t, psk).Open(now, 0, knockcore.NewMACScratch(), v.datagram(t))
		var refusal *knockcore.Refusal
		if !errors.As(err, &refusal) || refusal.Client != "c00000" || refusal.Reason != knockcore.ReasonMalformed {
			t.Errorf("got %v", err)
		}
		return
	}
	t.Error("vector n19 is missing")
}

func TestPyknockTimes(t *testing.T) {
	psk := knockcore.NewSecret([]byte("a key"))
	now := time.Date(2026, 11, 21, 1, 2, 3, 456789000, time.UTC)
	p := Pyknock{Time: PyknockTime(now), Addr: netip.MustParseAddr("192.0.2.1")}
	if d := p.Timestamp().Sub(now).Abs(); d > time.Microsecond {
		t.Errorf("the time is off by %v", d)
	}
	b, err := p.Seal(psk)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		shift, window time.Duration
		want          knockcore.Reason
	}{
		{0, 0, knockcore.ReasonNone},
		{59 * time.Second, 0, knockcore.ReasonNone},
		{61 * time.Second, 0, knockcore.ReasonStale},
		{-61 * time.Second, 0, knockcore.ReasonFuture},
		{61 * time.Second, 2 * time.Minute, knockcore.ReasonNone},
		{2 * time.Second, time.Second, knockcore.ReasonStale},
	} {
		if _, err := OpenPyknock(now.Add(test.shift), test.window, psk, b); knockcore.ReasonOf(err) != test.want {
			t.Errorf("%v late, window %v: %v, want %v", test.shift, test.window, err, test.want)
		}
	}
}

func TestPyknockReplayKey(t *testing.T) {
	p := Pyknock{MAC: [32]byte{1}}
	again := p
	if p.ReplayKey("a") == p.ReplayKey("b") || p.ReplayKey("a") != again.ReplayKey("a") {
		t.Error("the replay key does not tell clients apart")
	}
}
