// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/json"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// FuzzDispatch: nothing that comes panics, and whoever has no key opens nothing
// and leaves nothing behind.
func FuzzDispatch(f *testing.F) {
	a, foreign := alice(), alice()
	foreign.Secrets[0] = secret("the secret of somebody else")
	foreign.Pyknock[0] = secret("a key of somebody else")
	foreign.Fwknop[0] = knockcore.FwknopKeys{Encryption: secret("somebody's fwknop key"), HMAC: secret("somebody's HMAC key")}
	now := time.Unix(1_800_000_000, 0)
	seeds := [][]byte{
		nil, make([]byte, 49), make([]byte, 61), make([]byte, 98), make([]byte, MaxPayload+1),
		frame(f, foreign, wire.Datagram{Port: 22, Time: now.UnixMilli()}),
		frame(f, foreign, wire.Datagram{Method: knockcore.MethodUDPSeq, Port: 22, Time: now.UnixMilli(), Sequence: true, Total: 3}),
		pyknockOf(f, foreign, wire.Pyknock{Addr: stranger.Addr(), Time: wire.PyknockTime(now)}),
		pyknockOf(f, foreign, wire.Pyknock{Addr: addr("2001:db8::1"), Time: wire.PyknockTime(now)}),
		fwknopOf(f, foreign, wire.Fwknop{Type: 1, Allow: stranger.Addr(), Ports: ports(f, "tcp/22"), Time: now.Unix()}),
	}
	for _, own := range [][]byte{
		frame(f, a, wire.Datagram{Port: 22, Time: now.UnixMilli()}),
		pyknockOf(f, a, wire.Pyknock{Addr: stranger.Addr(), Time: wire.PyknockTime(now)}),
		fwknopOf(f, a, wire.Fwknop{Type: 1, Allow: stranger.Addr(), Ports: ports(f, "tcp/22"), Time: now.Unix()}),
	} {
		own[len(own)/2] ^= 1
		seeds = append(seeds, own)
	}
	var file struct {
		Vectors []struct {
			Wire hexBytes `json:"datagram_hex"`
		}
	}
	loadVectors(f, "pyknock.json", &file)
	for _, v := range file.Vectors {
		seeds = append(seeds, v.Wire)
	}
	for _, s := range seeds {
		f.Add(s, []byte(stranger.Addr().AsSlice()))
	}
	g := newGuard(f, setup{clients: []*knockcore.Client{a}, services: services(), now: now, limits: knockcore.NewLimiter(knockcore.LimitConfig{Capacity: 64})})
	f.Fuzz(func(t *testing.T, payload, from []byte) {
		source, _ := netip.AddrFromSlice(from)
		if err := g.Decide(t.Context(), &Packet{At: now, From: netip.AddrPortFrom(source, 1), Payload: payload}); err == nil {
			t.Error("taken for a knock")
		}
		if len(g.granted()) > 0 || g.gate.State().Len() > 0 || g.gate.State().Store.(*knockcore.MemoryStore).Nonces() > 0 {
			t.Error("something is left behind")
		}
	})
}

// FuzzKeyHolder: whoever has a key can neither crash us nor get more than he may,
// whatever he writes into a knock.
func FuzzKeyHolder(f *testing.F) {
	a := alice()
	now := time.Unix(1_800_000_000, 0)
	f.Add(uint16(22), now.UnixMilli(), 0.0, []byte(stranger.Addr().AsSlice()), now.Unix(), "tcp/22", uint8(1), uint8(0))
	f.Add(uint16(443), int64(math.MinInt64), math.NaN(), []byte{127, 0, 0, 1}, int64(1<<40), "udp/443", uint8(4), uint8(3))
	f.Add(uint16(0), int64(math.MaxInt64), math.Inf(1), make([]byte, 16), int64(0), "tcp/1", uint8(0), uint8(8))
	f.Fuzz(func(t *testing.T, port uint16, ms int64, seconds float64, signed []byte, unix int64, wanted string, kind, index uint8) {
		g := newGuard(t, setup{clients: []*knockcore.Client{a}, services: services(), now: now})
		var payloads [][]byte
		d := wire.Datagram{Method: DatagramMethods[kind%4], Port: port, Time: ms, Index: index, Total: 3, Session: signed}
		d.Sequence = d.NeedsSequence()
		if b, err := d.Seal(credential(a)); err == nil {
			payloads = append(payloads, b)
		}
		to, _ := netip.AddrFromSlice(signed)
		p := wire.Pyknock{Addr: to, Time: wire.PyknockTime(now) + seconds, Close: kind%2 == 1}
		if b, err := p.Seal(a.Pyknock[0]); err == nil {
			payloads = append(payloads, b)
		}
		packet := wire.Fwknop{User: "a", Type: int(kind % 7), Allow: to, Time: unix, Timeout: time.Duration(index) * time.Second}
		if r, err := knockcore.ParsePortRange(wanted); err == nil {
			packet.Ports = []knockcore.PortRange{r}
		}
		if b, err := packet.Seal(a.Fwknop[0]); err == nil {
			payloads = append(payloads, b)
		}
		for _, b := range payloads {
			_ = g.send(stranger, b)
		}
		for _, grant := range g.granted() {
			if !a.MayReach(grant.Service) || grant.Prefix != knockcore.AddrPrefix(stranger.Addr()) {
				t.Errorf("granted %+v", grant)
			}
		}
	})
}

// TestEveryLength sends junk of every length that a datagram can have, and of each
// of the structures.
func TestEveryLength(t *testing.T) {
	g := newGuard(t, setup{clients: []*knockcore.Client{alice()}, services: services()})
	for _, fill := range []byte{0, 'A', '9', 0xff} {
		payload := make([]byte, 65535)
		for i := range payload {
			payload[i] = fill
		}
		for n := 0; n <= len(payload); n++ {
			if n > 2*MaxPayload && n%97 != 0 && n < 65500 {
				continue
			}
			if err := g.send(stranger, payload[:n]); err == nil {
				t.Fatalf("%d bytes of %#x were taken", n, fill)
			}
		}
	}
	if len(g.granted()) > 0 {
		t.Error("something was granted")
	}
}

// TestStructuresExclude: no payload is a candidate for two kinds of knock, so that
// the order of the questions does not matter.
func TestStructuresExclude(t *testing.T) {
	var file struct {
		Positive []struct {
			Wire hexBytes `json:"wire_hex"`
		} `json:"udp_knock"`
	}
	loadVectors(t, "libknock-udp.json", &file)
	for _, v := range file.Positive {
		if wire.LooksLikePyknock(v.Wire) || wire.LooksLikeFwknop(v.Wire) {
			t.Errorf("a libknock frame of %d bytes looks like something else", len(v.Wire))
		}
	}
	// The least frame that libknock takes.
	least := wire.Datagram{Method: knockcore.MethodUDP, Port: 1, ClientRandom: []byte{}}
	if b, err := least.Seal(credential(alice())); err != nil || wire.LooksLikePyknock(b) || len(b) <= 61 {
		t.Errorf("the least frame has %d bytes, %v", len(b), err)
	}
	var fw struct {
		Vectors []json.RawMessage
	}
	loadVectors(t, "fwknop.json", &fw)
	for _, raw := range fw.Vectors {
		var v struct{ Packet string }
		if json.Unmarshal(raw, &v); wire.LooksLikePyknock([]byte(v.Packet)) {
			t.Error("a fwknop packet looks like pyknock's")
		}
	}
}
