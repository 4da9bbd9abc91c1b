// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// BenchmarkDatagramOpen: the client in the middle of the list, the last of the
// ports; the same from an address that it was admitted from; and a stranger's datagram
// of the same form.
func BenchmarkDatagramOpen(b *testing.B) {
	for _, clients := range []int{1, 100, 10000} {
		k := vectorKeyring(b, synClients(clients))
		cred := &k.Credentials()[clients/2]
		for _, ports := range [][]uint16{{22}, {80, 443, 22}} {
			cfg := DatagramConfig{Methods: knockcore.AllMethods, Ports: ports}
			k.Remember(familiarAddr, cred)
			for name, port := range map[string]uint16{"accept": 22, "reject": 9, "familiar": 22} {
				source := netip.Addr{}
				if name == "familiar" {
					source = familiarAddr
				}
				frame, err := (&Datagram{Method: knockcore.MethodUDP, Port: port, Session: make([]byte, 16)}).Seal(cred)
				if err != nil {
					b.Fatal(err)
				}
				b.Run(fmt.Sprintf("%s/clients=%d/ports=%d", name, clients, len(ports)), func(b *testing.B) {
					b.ReportAllocs()
					s := knockcore.NewMACScratch()
					for b.Loop() {
						if _, _, err := cfg.OpenFrom(source, k, s, frame); (err == nil) != (port == 22) {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}

func BenchmarkDatagramSeal(b *testing.B) {
	cred := testCredential("alice", datagramSecret)
	d := &Datagram{Method: knockcore.MethodUDP, Port: 22, Session: make([]byte, 16)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Seal(cred); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSYNLookup(b *testing.B) {
	now := time.Unix(3000, 0)
	for _, clients := range []int{1, 10000} {
		k := vectorKeyring(b, synClients(clients))
		x, err := NewSYNIndex(SYNIndexConfig{Keyring: k, Methods: bothSYN, Ports: []uint16{22}}, now)
		if err != nil {
			b.Fatal(err)
		}
		hit := SYNTag(&k.Credentials()[clients/2], 22, 100)
		for name, f := range map[string]SYNFields{"hit": hit, "miss": {Seq: hit.Seq, Window: hit.Window}} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, ok := x.Lookup(now, 22, f); ok != (name == "hit") {
						b.Fatal(ok)
					}
				}
			})
		}
	}
}

// BenchmarkSYNAdvance: the step to the next slot, both methods, 4 tags a client.
func BenchmarkSYNAdvance(b *testing.B) {
	for _, clients := range []int{1, 10000} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			now := time.Unix(3000, 0)
			x, err := NewSYNIndex(SYNIndexConfig{Keyring: vectorKeyring(b, synClients(clients)), Methods: bothSYN, Ports: []uint16{22}}, now)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(DefaultSYNSlot * time.Second)
				x.Prepare(now)
			}
		})
	}
}

func BenchmarkUDPSequence(b *testing.B) {
	u := newUDPSequences(b, UDPSequenceConfig{})
	now, d := time.Unix(0, 0), udpPart(0, 0, 3)
	b.ReportAllocs()
	for n := uint32(0); b.Loop(); n++ {
		d.SequenceID = [16]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}
		for d.Index = range uint8(3) {
			if _, err := u.Add(now, udpSource(1), "a", d); err != nil {
				b.Fatal(err)
			}
		}
	}
}
