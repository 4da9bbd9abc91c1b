// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestDatagramVectors(t *testing.T) {
	for _, v := range loadDatagramVectors(t).Positive {
		t.Run(v.Name, func(t *testing.T) {
			d, cred := v.datagram(t), testCredential(v.ClientID, v.Secret)
			frame, err := d.SealMax(cred, v.MaxFrame)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(frame, v.Wire) {
				t.Errorf("frame differs:\n got %x\nwant %x", frame, []byte(v.Wire))
			}
			idHash := datagramIDHash(&cred.MAC, knockcore.NewMACScratch(), v.ClientID)
			if plain, err := d.appendPayload(nil, idHash); err != nil || !bytes.Equal(plain, v.Expect.Plaintext) {
				t.Errorf("payload %x, %v; want %x", plain, err, []byte(v.Expect.Plaintext))
			}
			if aad := appendDatagramAAD(nil, v.Wire, v.Port); !bytes.Equal(aad, v.Expect.AAD) {
				t.Errorf("additional data %x, want %x", aad, []byte(v.Expect.AAD))
			}

			k := vectorKeyring(t, v.Expect.Server.Clients)
			if k == nil {
				t.Skipf("the client's ID has %d bytes: sealed only", len(v.ClientID))
			}
			got, id, err := v.Expect.Server.receive(t, k, map[knockcore.ReplayKey]bool{}, v.Expect.Server.NowMS, v.Wire)
			if err != nil || id != v.Expect.Outcome.Accepted {
				t.Fatalf("client %q, %v; want %q", id, err, v.Expect.Outcome.Accepted)
			}
			sameDatagram(t, got, d)
		})
	}
}

// sameDatagram compares what Open returned with what was sealed.
func sameDatagram(t testing.TB, got, want *Datagram) {
	t.Helper()
	same := got.Method == want.Method && got.Port == want.Port && got.Time == want.Time &&
		bytes.Equal(got.Session, want.Session) && got.Sequence == want.Sequence &&
		got.SequenceID == want.SequenceID && got.Index == want.Index && got.Total == want.Total &&
		(want.ClientRandom == nil || bytes.Equal(got.ClientRandom, want.ClientRandom)) &&
		len(got.Extensions) == len(want.Extensions) &&
		(want.Nonce == nil || bytes.Equal(got.Nonce, want.Nonce))
	for i := range got.Extensions {
		same = same && got.Extensions[i].Type == want.Extensions[i].Type && bytes.Equal(got.Extensions[i].Value, want.Extensions[i].Value)
	}
	if !same {
		t.Errorf("datagram differs:\n got %+v\nwant %+v", got, want)
	}
}

// datagramReasons are our reasons for each of the entries that libknock refuses,
// where the one expected for its class does not fit.
var datagramReasons = map[string]knockcore.Reason{
	"udp-wrong-method":           knockcore.ReasonWrongMethod,
	"udp-seq-method-mismatch":    knockcore.ReasonWrongMethod,
	"udp-seq-to-single-listener": knockcore.ReasonWrongMethod,
	"udp-inner-port-differs":     knockcore.ReasonWrongPort,
	"udp-age-30001":              knockcore.ReasonStale,
	"udp-future-30001":           knockcore.ReasonFuture,
}

var datagramClasses = map[string]knockcore.Reason{
	"invalid_frame":     knockcore.ReasonMalformed,
	"frame_too_large":   knockcore.ReasonMalformed,
	"unsupported_flags": knockcore.ReasonUnsupported,
	"unknown_client":    knockcore.ReasonUnknownClient,
	"auth_failed":       knockcore.ReasonAuthFailed,
	"replay":            knockcore.ReasonReplay,
}

func TestDatagramNegativeVectors(t *testing.T) {
	accepted := 0
	for _, v := range loadDatagramVectors(t).Negative {
		t.Run(v.Name, func(t *testing.T) {
			k, seen := vectorKeyring(t, v.Server.Clients), map[knockcore.ReplayKey]bool{}
			var d *Datagram
			var id string
			var err error
			for range v.SendTimes {
				d, id, err = v.Server.receive(t, k, seen, v.Server.NowMS, v.Wire)
			}
			if v.Outcome.Result == "accept" {
				accepted++
				if err != nil || id != v.Outcome.Accepted {
					t.Fatalf("client %q, %v; want %q", id, err, v.Outcome.Accepted)
				}
				if !d.Sequence && d.NeedsSequence() {
					u, _ := NewUDPSequences(UDPSequenceConfig{})
					if complete, err := u.Add(time.Now(), netip.MustParseAddr("192.0.2.10"), id, d); complete || err == nil {
						t.Error("a frame of type 1 was taken for a part")
					}
				}
				return
			}
			want, special := datagramReasons[v.Name]
			if !special {
				want = datagramClasses[v.Outcome.Class]
			}
			if !errors.Is(err, want) || want == knockcore.ReasonNone {
				t.Errorf("%s: %v, want %v", v.Comment, err, want)
			}
		})
	}
	if accepted == 0 {
		t.Error("no control was accepted")
	}
}

func TestUDPSequenceVectors(t *testing.T) {
	reasons := map[string]knockcore.Reason{
		"error:invalid udp sequence index or total": knockcore.ReasonMalformed,
		"error:duplicate_part":                      knockcore.ReasonReplay,
		"error:auth failed":                         knockcore.ReasonAuthFailed,
		"error:replay detected":                     knockcore.ReasonReplay,
		"error:sequence_inflight_per_ip_exceeded":   knockcore.ReasonLimited,
	}
	for _, v := range loadDatagramVectors(t).Scenarios {
		t.Run(v.Name, func(t *testing.T) {
			u, err := NewUDPSequences(UDPSequenceConfig{
				Length: v.Length, Window: time.Duration(v.WindowMS) * time.Millisecond, MaxPerSource: v.MaxPerSource,
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(v.Steps) == 0 {
				t.Fatal("no steps")
			}
			k, seen := vectorKeyring(t, v.Server.Clients), map[knockcore.ReplayKey]bool{}
			for i, step := range v.Steps {
				now := v.Server.NowMS + step.AtMS
				d, id, err := v.Server.receive(t, k, seen, now, step.Wire)
				if step.OpenClass == "replay" && errors.Is(err, knockcore.ReasonReplay) {
					continue
				}
				if err != nil || step.OpenClass != "ok" {
					t.Fatalf("step %d: %v, want %s", i, err, step.OpenClass)
				}
				complete, err := u.Add(time.UnixMilli(now), step.Source, id, d)
				var ok bool
				switch step.Result {
				case "pending", "complete":
					ok = err == nil && complete == (step.Result == "complete")
				default:
					want, known := reasons[step.Result]
					ok = known && errors.Is(err, want) && !complete
				}
				if !ok {
					t.Fatalf("step %d: %v, %v; want %s", i, complete, err, step.Result)
				}
			}
		})
	}
}
