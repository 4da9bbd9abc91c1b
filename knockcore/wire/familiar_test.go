// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

var familiarAddr = netip.MustParseAddr("203.0.113.7")

// twins are clients of whom two and two share a secret, and some have two.
func twins(tb testing.TB) *knockcore.Keyring {
	var clients []*knockcore.Client
	for i := range 12 {
		c := &knockcore.Client{ID: fmt.Sprintf("c%02d", i), Secrets: []knockcore.Secret{knockcore.NewSecret(testSecret(byte(i)))}}
		if i%4 < 2 {
			c.Secrets[0] = knockcore.NewSecret(testSecret(byte(100 + i/4)))
		}
		if i%3 == 0 {
			c.Secrets = append(c.Secrets, knockcore.NewSecret(testSecret(byte(200+i/6))))
		}
		clients = append(clients, c)
	}
	ring, err := knockcore.NewKeyring(clients)
	if err != nil {
		tb.Fatal(err)
	}
	return ring
}

// TestFamiliarStream: frames of many clients from one address, good and spoiled, have
// the verdicts that they have without it.
func TestFamiliarStream(t *testing.T) {
	ring, rng := twins(t), rand.New(rand.NewPCG(1, 2))
	creds := ring.Credentials()
	config := &StreamConfig{Methods: onlyV1 | onlyV2, MaxAttempts: 7}
	for range 400 {
		cred := &creds[rng.IntN(len(creds))]
		method := []knockcore.Method{knockcore.MethodFrameV1, knockcore.MethodEnvelopeV2}[rng.IntN(2)]
		b := mustSeal(t, cred, TCPFrame{Method: method, Port: testPort + uint16(rng.IntN(8)/7)})
		if rng.IntN(4) == 0 {
			b[40+rng.IntN(len(b)-40)] ^= 1
		}
		plain, known := config.NewStream(ring, testPort), config.NewStream(ring, testPort)
		known.From(familiarAddr)
		want, got := plain.Check(b), known.Check(b)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, from a familiar address %+v", want, got)
		}
		if got.State == Authentic {
			known.Admitted()
		}
	}
}

// TestFamiliarReplay: a frame that was accepted before is looked for among all clients,
// wherever it comes from: an eavesdropper at the client's address must not see by the
// time that it was one.
func TestFamiliarReplay(t *testing.T) {
	ring, looks := twins(t), 0
	cred := &ring.Credentials()[2] // no other has its secret
	config := &StreamConfig{Methods: onlyV1 | onlyV2, Seen: func(knockcore.ReplayKey) bool { looks++; return true }}
	for _, method := range []knockcore.Method{knockcore.MethodFrameV1, knockcore.MethodEnvelopeV2} {
		b := mustSeal(t, cred, TCPFrame{Method: method, Port: testPort})
		ring.Remember(familiarAddr, cred)
		for source, want := range map[netip.Addr]int{peerAddr: 1, familiarAddr: 2} { // in the scan; as a guess, too
			looks = 0
			stream := config.NewStream(ring, testPort)
			stream.From(source)
			if v := stream.Check(b); v.State != Foreign || v.Reason != knockcore.ReasonReplay || looks != want {
				t.Errorf("%v from %v: %+v, found %d times, not %d", method, source, v, looks, want)
			}
		}
	}
}

// TestFamiliarDatagram is the same for datagrams, with several ports.
func TestFamiliarDatagram(t *testing.T) {
	ring, rng, s := twins(t), rand.New(rand.NewPCG(3, 4)), knockcore.NewMACScratch()
	creds := ring.Credentials()
	config := &DatagramConfig{Methods: knockcore.AllMethods, Ports: []uint16{80, 443, 22}}
	for range 400 {
		cred := &creds[rng.IntN(len(creds))]
		b, err := (&Datagram{Method: knockcore.MethodUDP, Port: []uint16{80, 443, 22, 9}[rng.IntN(4)], Session: make([]byte, 16)}).Seal(cred)
		if err != nil {
			t.Fatal(err)
		}
		if rng.IntN(4) == 0 {
			b[DatagramHeaderLen+rng.IntN(20)] ^= 1
		}
		want, wantCred, wantErr := config.Open(ring, s, b)
		got, gotCred, gotErr := config.OpenFrom(familiarAddr, ring, s, b)
		if !reflect.DeepEqual(got, want) || gotCred != wantCred || !reflect.DeepEqual(gotErr, wantErr) {
			t.Fatalf("%+v of %v, %v; from a familiar address %+v of %v, %v", want, wantCred, wantErr, got, gotCred, gotErr)
		}
		if got != nil {
			ring.Remember(familiarAddr, gotCred)
		}
	}
}

// TestFamiliarPyknock and fwknop: also of clients that share keys the same one is
// found.
func TestFamiliarPyknock(t *testing.T) {
	now, s, rng := time.Unix(1_795_219_350, 0), knockcore.NewMACScratch(), rand.New(rand.NewPCG(5, 6))
	var psks []knockcore.Secret
	for i := range 12 {
		psks = append(psks, madeUpSecret("psk", i/2))
	}
	keys := pyknockRing(t, psks...)
	for range 200 {
		b, err := (&Pyknock{Time: PyknockTime(now), Addr: peerAddr}).Seal(madeUpSecret("psk", rng.IntN(8)))
		if err != nil {
			t.Fatal(err)
		}
		want, wantClient, wantErr := keys.Open(now, 0, s, b)
		got, client, key, err := keys.OpenFrom(familiarAddr, now, 0, s, b)
		if !reflect.DeepEqual(got, want) || client != wantClient || !errors.Is(err, wantErr) {
			t.Fatalf("%+v of %v, %v; from a familiar address %+v of %v, %v", want, wantClient, wantErr, got, client, err)
		}
		if err == nil {
			keys.Admitted(familiarAddr, key)
		}
	}
}

func TestFamiliarFwknop(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	var pairs []knockcore.FwknopKeys
	for i := range 12 { // every second one has the HMAC key of the one before
		pair := madeUpPair(i, []string{"sha256", "sha512"}[i/2%2])
		pair.HMAC = madeUpSecret("mac", i/2)
		pairs = append(pairs, pair)
	}
	pairs = append(pairs, pairs...)
	keys := fwknopRing(t, pairs...)
	for range 200 {
		pair := pairs[rng.IntN(len(pairs))]
		if rng.IntN(5) == 0 {
			pair.Encryption = madeUpSecret("enc", -1)
		}
		f := &Fwknop{User: "alice", Time: 1795219350, Type: FwknopAccess, Allow: peerAddr, Ports: fwknopPorts("tcp/22")}
		b, err := f.Seal(pair)
		if err != nil {
			t.Fatal(err)
		}
		want, wantClient, wantErr := keys.Open(b)
		got, client, key, err := keys.OpenFrom(familiarAddr, b)
		if !reflect.DeepEqual(got, want) || client != wantClient || !reflect.DeepEqual(err, wantErr) {
			t.Fatalf("%+v of %v, %v; from a familiar address %+v of %v, %v", want, wantClient, wantErr, got, client, err)
		}
		if err == nil {
			keys.Admitted(familiarAddr, key)
		}
	}
}
