// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// synIndexOf makes an index of one client, nil if its ID is longer than a
// keyring allows.
func synIndexOf(t testing.TB, clients []vectorClient, cfg SYNIndexConfig, now time.Time) *SYNIndex {
	t.Helper()
	if cfg.Keyring = vectorKeyring(t, clients); cfg.Keyring == nil {
		return nil
	}
	x, err := NewSYNIndex(cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

var bothSYN = knockcore.NewMethodSet(knockcore.MethodTCPSYN, knockcore.MethodTCPSYNSeq)

func TestSYNVectors(t *testing.T) {
	for _, v := range loadSYNVectors(t).Single {
		t.Run(v.Name, func(t *testing.T) {
			cred, want := testCredential(v.ClientID, v.Secret), SYNFields(v.Fields)
			if slot := SYNSlot(v.Now, v.Seconds); slot != v.Slot {
				t.Errorf("slot %d, want %d", slot, v.Slot)
			}
			if got := SYNTag(cred, v.Port, v.Slot); got != want {
				t.Errorf("fields %+v, want %+v", got, want)
			}
			if nonce := want.Nonce(v.Port); !bytes.Equal(nonce[:], v.Nonce) {
				t.Errorf("nonce %x, want %x", nonce, []byte(v.Nonce))
			}
			if v.Packet != nil {
				if _, port, f, ok := synPacket(v.Packet.Packet); !ok || port != v.Port || f != want {
					t.Errorf("packet has %d %+v, %v", port, f, ok)
				}
			}
			now := time.Unix(v.Now, 0)
			x := synIndexOf(t, []vectorClient{{v.ClientID, v.Secret}}, SYNIndexConfig{
				Methods: bothSYN, Ports: []uint16{v.Port}, SlotSeconds: v.Seconds,
			}, now)
			if x == nil {
				t.Skipf("the client's ID has %d bytes: tag only", len(v.ClientID))
			}
			m, ok := x.Lookup(now, v.Port, want)
			if !ok || m.Credential.Client.ID != v.ClientID || m.Method != knockcore.MethodTCPSYN || m.Port != v.Port ||
				m.Slot != v.Slot || m.Index != 0 || m.Total != 1 || m.Legacy {
				t.Fatalf("match %+v, %v", m, ok)
			}
			if nonce := m.ReplayNonce(); !bytes.Equal(nonce[:], v.Nonce) {
				t.Errorf("nonce of the match %x, want %x", nonce, []byte(v.Nonce))
			}
		})
	}
}

func TestSYNNegativeVectors(t *testing.T) {
	accepted := 0
	for _, v := range loadSYNVectors(t).Negative {
		t.Run(v.Name, func(t *testing.T) {
			now := time.Unix(v.Now, 0)
			x := synIndexOf(t, []vectorClient{{v.ClientID, v.Secret}}, SYNIndexConfig{
				Methods: bothSYN, Ports: []uint16{v.Port}, SlotSeconds: v.Seconds,
			}, now)
			_, port, f, parsed := synPacket(v.Packet)
			if (parsed && port == v.Port) != v.Parsed {
				t.Errorf("parsed: %v to port %d, want %v", parsed, port, v.Parsed)
			}
			m, ok := x.Lookup(now, port, f)
			if ok = ok && parsed; ok != v.Accepted {
				t.Errorf("%s: accepted %v (%+v), want %v", v.Comment, ok, m, v.Accepted)
			}
			if ok {
				accepted++
			}
		})
	}
	if accepted == 0 {
		t.Error("no control was accepted")
	}
}

func TestSYNSeqVectors(t *testing.T) {
	for _, v := range loadSYNVectors(t).Sequence {
		t.Run(v.Name, func(t *testing.T) {
			if len(v.Parts) != v.Total {
				t.Fatalf("%d parts", len(v.Parts))
			}
			now := time.Unix(v.Now, 0)
			cfg := SYNIndexConfig{
				Methods: bothSYN, Ports: []uint16{v.Port}, SlotSeconds: 7, SeqSlotSeconds: v.Seconds,
				Length: v.Total, Legacy: v.Legacy, Keyring: testKeyring(t),
			}
			if v.Asked != v.Total { // libknock computes another number of parts than it waits for
				bad := cfg
				bad.Length = v.Asked
				if _, err := NewSYNIndex(bad, now); err == nil || !strings.Contains(err.Error(), "2 to 5") {
					t.Errorf("length %d: %v", v.Asked, err)
				}
			}
			cred := testCredential(v.ClientID, v.Secret)
			x := synIndexOf(t, []vectorClient{{v.ClientID, v.Secret}}, cfg, now)
			q, err := NewSYNSequences(SYNSequenceConfig{Length: v.Total})
			if err != nil {
				t.Fatal(err)
			}
			if slot := SYNSlot(v.Now, v.Seconds); slot != v.Slot {
				t.Errorf("slot %d, want %d", slot, v.Slot)
			}
			head := SYNFields(v.Parts[0].Fields).Nonce(v.Port)
			for i, p := range v.Parts {
				f, dst := SYNSeqTag(cred, v.Port, v.Slot, p.Index, v.Legacy)
				if f != SYNFields(p.Fields) || dst != p.Port {
					t.Errorf("part %d: %+v to %d, want %+v to %d", i, f, dst, p.Fields, p.Port)
				}
				m, ok := x.Lookup(now, dst, f)
				want := SYNMatch{m.Credential, knockcore.MethodTCPSYNSeq, v.Port, v.Slot, p.Index, uint8(v.Total), v.Legacy}
				if !ok || m != want || m.Credential.Client.ID != v.ClientID {
					t.Fatalf("part %d: match %+v, %v", i, m, ok)
				}
				if m.ReplayNonce() != head {
					t.Errorf("part %d: nonce %x, want part 0's, %x", i, m.ReplayNonce(), head)
				}
				complete, err := q.Add(now, netip.MustParseAddr("192.0.2.10"), m)
				if err != nil || complete != (i == v.Total-1) {
					t.Errorf("part %d: %v, %v", i, complete, err)
				}
			}
			if cfg.Legacy = !v.Legacy; !cfg.Legacy {
				x = synIndexOf(t, []vectorClient{{v.ClientID, v.Secret}}, cfg, now)
				if _, ok := x.Lookup(now, v.Parts[0].Port, SYNFields(v.Parts[0].Fields)); ok {
					t.Error("a legacy part is recognised though nobody asked for it")
				}
			}
		})
	}
}

func TestSYNSeqScenarios(t *testing.T) {
	for _, v := range loadSYNVectors(t).Scenarios {
		t.Run(v.Name, func(t *testing.T) {
			if len(v.Steps) == 0 {
				t.Fatal("no steps")
			}
			q, err := NewSYNSequences(SYNSequenceConfig{Length: v.Length, Window: time.Duration(v.WindowMS) * time.Millisecond})
			if v.Length < MinSYNSequence || v.Length > MaxSYNSequence {
				if err == nil {
					t.Errorf("length %d is accepted", v.Length)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			start := time.Unix(v.Start, 0)
			x := synIndexOf(t, v.Clients, SYNIndexConfig{
				Methods: knockcore.NewMethodSet(knockcore.MethodTCPSYNSeq), Ports: []uint16{v.Port},
				SeqSlotSeconds: v.Seconds, Length: v.Length,
			}, start)
			spent := map[string]bool{}
			for i, step := range v.Steps {
				now := start.Add(time.Duration(step.AtMS) * time.Millisecond)
				got := "ignored-or-pending"
				if m, ok := x.Lookup(now, step.Port, SYNFields(step.Fields)); ok {
					nonce := m.ReplayNonce()
					key := m.Credential.Client.ID + hex.EncodeToString(nonce[:])
					if m.Index == 0 && spent[key] {
						ok = false
					}
					if ok {
						spent[key] = true
						if complete, _ := q.Add(now, step.Source, m); complete {
							got = "complete:" + m.Credential.Client.ID
						}
					}
				}
				if got != step.Result {
					t.Fatalf("step %d: %s, want %s", i, got, step.Result)
				}
			}
		})
	}
}
