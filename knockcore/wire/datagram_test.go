// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

var (
	datagramSecret = []byte("a secret of a good length")
	anyDatagram    = DatagramConfig{Methods: knockcore.AllMethods, Ports: []uint16{22}}
)

// craftDatagram seals any plaintext under any flags, with the hint for port.
func craftDatagram(cred *knockcore.Credential, port uint16, flags byte, plain []byte) []byte {
	frame := make([]byte, DatagramHeaderLen)
	copy(frame, "0123456789abcdef")
	s := knockcore.NewMACScratch()
	copy(frame[16:24], cred.MAC.Sum(s, appendHintMessage(nil, datagramHintLabel, frame[:16], port))[:])
	binary.BigEndian.PutUint16(frame[24:], uint16(len(plain)+chacha20poly1305.Overhead))
	frame[26] = flags
	return datagramAEAD(s, cred, frame[:16]).Seal(frame, frame[:12], plain, appendDatagramAAD(nil, frame, port))
}

// craftPayload writes a plaintext by hand.
func craftPayload(cred *knockcore.Credential, kind byte, method string, port uint16, session, sequenceID []byte, index, total byte, extensions []byte) []byte {
	hash := datagramIDHash(&cred.MAC, knockcore.NewMACScratch(), cred.Client.ID)
	b := append([]byte{kind}, hash[:]...)
	b = binary.BigEndian.AppendUint64(b, 1000)
	b = appendVec8(b, []byte(method))
	b = binary.BigEndian.AppendUint16(b, port)
	b = appendVec8(b, session)
	b = appendVec8(b, sequenceID)
	b = append(b, index, total)
	b = appendVec8(b, nil)
	b = binary.BigEndian.AppendUint16(b, uint16(len(extensions)))
	return append(b, extensions...)
}

func TestDatagramRules(t *testing.T) {
	cred := testCredential("alice", datagramSecret)
	k, id16 := testKeyring(t, cred), make([]byte, 16)
	udp := knockcore.NewMethodSet(knockcore.MethodUDP)
	all := knockcore.AllMethods
	for _, c := range []struct {
		name    string
		methods knockcore.MethodSet
		flags   byte
		plain   []byte
		want    knockcore.Reason
	}{
		{"single", udp, 0, craftPayload(cred, 1, "udp", 22, nil, nil, 0, 0, nil), 0},
		{"single with sequence leftovers", udp, 0, craftPayload(cred, 1, "udp", 22, nil, []byte("xyz"), 200, 100, nil), 0},
		{"part", all, 1, craftPayload(cred, 2, "udp-passive-seq", 22, nil, id16, 7, 8, nil), 0},
		{"all flags", all, 7, craftPayload(cred, 2, "udp-seq", 22, id16, id16, 1, 2, []byte{0, 1, 0, 0}), 0},
		{"part with a single's method", all, 1, craftPayload(cred, 2, "udp", 22, nil, id16, 0, 2, nil), knockcore.ReasonMalformed},
		{"unknown method", all, 0, craftPayload(cred, 1, "udp2", 22, nil, nil, 0, 0, nil), knockcore.ReasonWrongMethod},
		{"method of another kind", all, 0, craftPayload(cred, 1, "tcp-syn", 22, nil, nil, 0, 0, nil), knockcore.ReasonWrongMethod},
		{"method in capitals", all, 0, craftPayload(cred, 1, "UDP", 22, nil, nil, 0, 0, nil), knockcore.ReasonWrongMethod},
		{"method not enabled", udp, 0, craftPayload(cred, 1, "udp-passive", 22, nil, nil, 0, 0, nil), knockcore.ReasonWrongMethod},
		{"no method", all, 0, craftPayload(cred, 1, "", 22, nil, nil, 0, 0, nil), knockcore.ReasonMalformed},
		{"other port", all, 0, craftPayload(cred, 1, "udp", 23, nil, nil, 0, 0, nil), knockcore.ReasonWrongPort},
		{"port 0", all, 0, craftPayload(cred, 1, "udp", 0, nil, nil, 0, 0, nil), knockcore.ReasonMalformed},
		{"type 0", all, 0, craftPayload(cred, 0, "udp", 22, nil, nil, 0, 0, nil), knockcore.ReasonMalformed},
		{"type 3", all, 0, craftPayload(cred, 3, "udp", 22, nil, nil, 0, 0, nil), knockcore.ReasonMalformed},
		{"type 3 as a part", all, 1, craftPayload(cred, 3, "udp-seq", 22, nil, id16, 0, 2, nil), knockcore.ReasonMalformed},
		{"session of 1 byte", all, 2, craftPayload(cred, 1, "udp", 22, []byte("x"), nil, 0, 0, nil), knockcore.ReasonMalformed},
		{"session of 15 bytes unannounced", all, 0, craftPayload(cred, 1, "udp", 22, id16[1:], nil, 0, 0, nil), knockcore.ReasonMalformed},
		{"session announced only", all, 2, craftPayload(cred, 1, "udp", 22, nil, nil, 0, 0, nil), knockcore.ReasonMalformed},
		{"extensions announced only", all, 4, craftPayload(cred, 1, "udp", 22, nil, nil, 0, 0, nil), knockcore.ReasonMalformed},
		{"sequence announced only", all, 1, craftPayload(cred, 1, "udp-seq", 22, nil, id16, 0, 2, nil), knockcore.ReasonMalformed},
		{"total 1", all, 1, craftPayload(cred, 2, "udp-seq", 22, nil, id16, 0, 1, nil), knockcore.ReasonMalformed},
		{"total 9", all, 1, craftPayload(cred, 2, "udp-seq", 22, nil, id16, 0, 9, nil), knockcore.ReasonMalformed},
		{"index 2 of 2", all, 1, craftPayload(cred, 2, "udp-seq", 22, nil, id16, 2, 2, nil), knockcore.ReasonMalformed},
		{"sequence ID of 17 bytes", all, 1, craftPayload(cred, 2, "udp-seq", 22, nil, make([]byte, 17), 0, 2, nil), knockcore.ReasonMalformed},
		{"nothing sealed", all, 0, nil, knockcore.ReasonMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := DatagramConfig{Methods: c.methods, Ports: []uint16{22}}
			d, who, err := cfg.Open(k, knockcore.NewMACScratch(), craftDatagram(cred, 22, c.flags, c.plain))
			if knockcore.ReasonOf(err) != c.want || (d == nil) != (err != nil) || (who == nil) != (err != nil) {
				t.Fatalf("%+v, %v; want %v", d, err, c.want)
			}
			if d != nil && !d.Sequence && (d.SequenceID != [16]byte{} || d.Index != 0 || d.Total != 0) {
				t.Errorf("sequence fields of a single knock: %+v", d)
			}
		})
	}
}

func TestDatagramSealErrors(t *testing.T) {
	cred := testCredential("alice", datagramSecret)
	good := Datagram{Method: knockcore.MethodUDP, Port: 22}
	part := Datagram{Method: knockcore.MethodUDPSeq, Port: 22, Sequence: true, Total: 3}
	for name, change := range map[string]func(*Datagram, *Datagram, *knockcore.Credential){
		"method":             func(d, _ *Datagram, _ *knockcore.Credential) { d.Method = knockcore.MethodFwknop },
		"no method":          func(d, _ *Datagram, _ *knockcore.Credential) { d.Method = 0 },
		"port":               func(d, _ *Datagram, _ *knockcore.Credential) { d.Port = 0 },
		"nonce":              func(d, _ *Datagram, _ *knockcore.Credential) { d.Nonce = make([]byte, 15) },
		"random":             func(d, _ *Datagram, _ *knockcore.Credential) { d.ClientRandom = make([]byte, 256) },
		"short session":      func(d, _ *Datagram, _ *knockcore.Credential) { d.Session = make([]byte, 15) },
		"long session":       func(d, _ *Datagram, _ *knockcore.Credential) { d.Session = make([]byte, 256) },
		"part of nothing":    func(d, _ *Datagram, _ *knockcore.Credential) { d.Sequence = true },
		"alone":              func(_, p *Datagram, _ *knockcore.Credential) { p.Sequence = false },
		"total":              func(_, p *Datagram, _ *knockcore.Credential) { p.Total = 9 },
		"index":              func(_, p *Datagram, _ *knockcore.Credential) { p.Index = 3 },
		"1025 bytes":         func(d, _ *Datagram, _ *knockcore.Credential) { d.Extensions = []TLV{{Value: make([]byte, 923)}} },
		"extensions too big": func(d, _ *Datagram, _ *knockcore.Credential) { d.Extensions = []TLV{{Value: make([]byte, 70000)}} },
		"no client":          func(_, _ *Datagram, c *knockcore.Credential) { c.Client = nil },
		"weak secret":        func(_, _ *Datagram, c *knockcore.Credential) { c.Secret = knockcore.NewSecret([]byte("short")) },
	} {
		d, p, c := good, part, *cred
		change(&d, &p, &c)
		_, err1 := d.Seal(&c)
		_, err2 := p.Seal(&c)
		if err := errors.Join(err1, err2); !errors.Is(err, knockcore.ReasonMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := good
	d.Extensions = []TLV{{Value: make([]byte, 922)}}
	if b, err := d.Seal(cred); err != nil || len(b) != DefaultMaxDatagram {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	d.Extensions = []TLV{{Value: make([]byte, 4000)}}
	b, err := d.SealMax(cred, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	k, s := testKeyring(t, cred), knockcore.NewMACScratch()
	if _, _, err := anyDatagram.Open(k, s, b); !errors.Is(err, knockcore.ReasonMalformed) {
		t.Errorf("longer than the limit: %v", err)
	}
	wide := anyDatagram
	wide.MaxFrame = len(b)
	if _, _, err := wide.Open(k, s, b); err != nil {
		t.Errorf("with MaxFrame raised: %v", err)
	}
}

// TestDatagramSealRandom: sealing the same content twice gives different frames,
// and leaves the content alone.
func TestDatagramSealRandom(t *testing.T) {
	cred := testCredential("alice", datagramSecret)
	cred.MAC = knockcore.MAC{} // sealing needs ID and secret only
	d := &Datagram{Method: knockcore.MethodUDP, Port: 22}
	a, _ := d.Seal(cred)
	b, _ := d.Seal(cred)
	if len(a) == 0 || bytes.Equal(a[:16], b[:16]) || bytes.Equal(a[28:], b[28:]) {
		t.Errorf("%x\n%x", a, b)
	}
	if d.Nonce != nil || d.ClientRandom != nil {
		t.Error("Seal changed the datagram")
	}
}

// TestDatagramCandidates: shared secrets, rotation, several ports, and refusals
// that name the client.
func TestDatagramCandidates(t *testing.T) {
	shared, other := knockcore.NewSecret(datagramSecret), knockcore.NewSecret([]byte("another secret of alice"))
	var clients []*knockcore.Client
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		clients = append(clients, &knockcore.Client{ID: id, Secrets: []knockcore.Secret{other, shared}})
	}
	k, err := knockcore.NewKeyring(clients)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DatagramConfig{Methods: knockcore.AllMethods, Ports: []uint16{1, 2, 3}}
	s := knockcore.NewMACScratch()
	for _, cred := range k.Credentials() {
		for port := uint16(1); port <= 4; port++ {
			b, err := (&Datagram{Method: knockcore.MethodUDP, Port: port}).Seal(&cred)
			if err != nil {
				t.Fatal(err)
			}
			d, who, err := cfg.Open(k, s, b)
			if port == 4 {
				if !errors.Is(err, knockcore.ReasonUnknownClient) {
					t.Errorf("port 4: %v", err)
				}
				continue
			}
			if err != nil || who.Client != cred.Client || !who.Secret.Equal(cred.Secret) || d.Port != port {
				t.Fatalf("client %s port %d: %+v, %v", cred.Client.ID, port, who, err)
			}
		}
	}
	stranger := testCredential("nobody", datagramSecret)
	b, _ := (&Datagram{Method: knockcore.MethodUDP, Port: 2}).Seal(stranger)
	if _, _, err := cfg.Open(k, s, b); !errors.Is(err, knockcore.ReasonAuthFailed) {
		t.Errorf("a client that only shares a secret: %v", err)
	}
	b, _ = (&Datagram{Method: knockcore.MethodUDP, Port: 2}).Seal(&k.Credentials()[0])
	b[len(b)-1] ^= 1
	var refusal *knockcore.Refusal
	if _, _, err := cfg.Open(k, s, b); !errors.As(err, &refusal) || refusal.Reason != knockcore.ReasonAuthFailed || refusal.Client == "" {
		t.Errorf("damaged: %v", err)
	}
}

// TestDatagramBits: no bit of a frame can be changed.
func TestDatagramBits(t *testing.T) {
	cred := testCredential("alice", datagramSecret)
	k, s := testKeyring(t, cred), knockcore.NewMACScratch()
	b, _ := (&Datagram{Method: knockcore.MethodUDP, Port: 22, Session: make([]byte, 16)}).Seal(cred)
	for bit := range len(b) * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, _, err := anyDatagram.Open(k, s, b); err == nil || knockcore.ReasonOf(err) == knockcore.ReasonStoreError {
			t.Fatalf("bit %d: %v", bit, err)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	for n := range len(b) {
		if _, _, err := anyDatagram.Open(k, s, b[:n]); !errors.Is(err, knockcore.ReasonMalformed) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	d, _, err := anyDatagram.Open(k, s, b)
	if err != nil {
		t.Fatal(err)
	}
	nonce := slices.Clone(b[:16])
	clear(b) // the receiver reuses its buffer
	if !bytes.Equal(d.Nonce, nonce) || d.Method != knockcore.MethodUDP || cap(d.Nonce) != 16 {
		t.Error("the datagram shares memory with the buffer")
	}
}

// TestDatagramRejectAllocs: what strangers send costs no allocation.
func TestDatagramRejectAllocs(t *testing.T) {
	cred := testCredential("alice", datagramSecret)
	k, s := testKeyring(t, cred), knockcore.NewMACScratch()
	b, _ := (&Datagram{Method: knockcore.MethodUDP, Port: 23}).Seal(cred)
	for name, frame := range map[string][]byte{"unknown": b, "short": b[:20], "cut": b[:90]} {
		if n := testing.AllocsPerRun(100, func() { _, _, _ = anyDatagram.Open(k, s, frame) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
