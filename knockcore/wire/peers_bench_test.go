// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

var benchClients = []int{1, 100, 10000}

// madeUpSecret derives a secret from a name.
func madeUpSecret(name string, i int) knockcore.Secret {
	sum := sha256.Sum256([]byte(name + strconv.Itoa(i)))
	return knockcore.NewSecret(sum[:])
}

func BenchmarkPyknockOpen(b *testing.B) {
	now := time.Unix(1795219350, 0)
	for _, n := range benchClients {
		var psks []knockcore.Secret
		for i := range n {
			psks = append(psks, madeUpSecret("psk", i))
		}
		keys, s := pyknockRing(b, psks...), knockcore.NewMACScratch()
		for _, accept := range []bool{true, false} {
			psk := psks[n-1]
			if !accept {
				psk = madeUpSecret("stranger", 0)
			}
			datagram, err := (&Pyknock{Time: PyknockTime(now), Addr: peerAddr}).Seal(psk)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("clients=%d/accept=%v", n, accept), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if p, _, _ := keys.Open(now, 0, s, datagram); (p != nil) != accept {
						b.Fatal("wrong decision")
					}
				}
			})
		}
	}
}

func madeUpPair(i int, hmacType string) knockcore.FwknopKeys {
	return knockcore.FwknopKeys{Encryption: madeUpSecret("enc", i), HMAC: madeUpSecret("mac", i), HMACType: hmacType}
}

func benchmarkFwknopOpen(b *testing.B, hmacType string, clients []int) {
	for _, n := range clients {
		var pairs []knockcore.FwknopKeys
		for i := range n {
			pairs = append(pairs, madeUpPair(i, hmacType))
		}
		keys := fwknopRing(b, pairs...)
		for _, accept := range []bool{true, false} {
			pair := pairs[n-1]
			if !accept {
				pair = madeUpPair(-1, hmacType)
			}
			f := &Fwknop{User: "alice", Time: 1795219350, Type: FwknopAccess, Allow: peerAddr, Ports: fwknopPorts("tcp/22")}
			packet, err := f.Seal(pair)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("clients=%d/accept=%v", n, accept), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if f, _, _ := keys.Open(packet); (f != nil) != accept {
						b.Fatal("wrong decision")
					}
				}
			})
		}
	}
}

func BenchmarkFwknopOpen(b *testing.B)       { benchmarkFwknopOpen(b, "sha256", benchClients) }
func BenchmarkFwknopOpenSHA512(b *testing.B) { benchmarkFwknopOpen(b, "sha512", []int{100}) }

// TestPeersRejectWithoutAllocation: what strangers send costs no memory.
func TestPeersRejectWithoutAllocation(t *testing.T) {
	now, s := time.Unix(1795219350, 0), knockcore.NewMACScratch()
	pyknock := pyknockRing(t, madeUpSecret("psk", 0), madeUpSecret("psk", 1))
	var pairs []knockcore.FwknopKeys
	for i := range fwknopDigests {
		pairs = append(pairs, madeUpPair(i, fwknopDigests[i].name))
	}
	fwknop := fwknopRing(t, pairs...)
	datagram, err := (&Pyknock{Time: PyknockTime(now), Addr: peerAddr}).Seal(madeUpSecret("stranger", 0))
	if err != nil {
		t.Fatal(err)
	}
	stale, err := (&Pyknock{Addr: peerAddr}).Seal(madeUpSecret("psk", 0))
	if err != nil {
		t.Fatal(err)
	}
	packet := []byte(fwknopVectorNamed(t, "p01-sha256-tcp22").Packet)
	for name, reject := range map[string]func() error{
		"pyknock, stranger":  func() error { _, _, err := pyknock.Open(now, 0, s, datagram); return err },
		"pyknock, stale":     func() error { _, _, err := pyknock.Open(now, 0, s, stale); return err },
		"pyknock, length":    func() error { _, _, err := pyknock.Open(now, 0, s, stale[1:]); return err },
		"fwknop, stranger":   func() error { _, _, err := fwknop.Open(packet); return err },
		"fwknop, shape":      func() error { _, _, err := fwknop.Open(packet[1:]); return err },
		"fwknop, odd length": func() error { _, _, err := fwknop.Open(packet[:len(packet)-1]); return err },
	} {
		if err := reject(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if peersRace {
			continue // the race detector makes pools forget
		}
		if n := slices.Min([]float64{testing.AllocsPerRun(100, func() { _ = reject() }), testing.AllocsPerRun(100, func() { _ = reject() })}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
