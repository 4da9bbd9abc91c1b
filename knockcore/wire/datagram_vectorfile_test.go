// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

type datagramVectors struct {
	Positive  []datagramVector         `json:"udp_knock"`
	Negative  []datagramNegative       `json:"negative"`
	Scenarios []datagramScenarioVector `json:"udp_seq_scenarios"`
}

type datagramVector struct {
	Name         string
	Secret       hexBytes `json:"secret_hex"`
	ClientID     string   `json:"client_id"`
	Port         uint16   `json:"server_port"`
	Time         int64    `json:"timestamp_ms"`
	Method       string
	Session      hexBytes `json:"session_id_hex"`
	SequenceID   hexBytes `json:"sequence_id_hex"`
	Index        uint8    `json:"sequence_index"`
	Total        uint8    `json:"sequence_total"`
	ClientRandom hexBytes `json:"client_random_hex"`
	Extensions   []struct {
		Type  uint16
		Value hexBytes `json:"value_hex"`
	}
	Nonce    hexBytes `json:"nonce_hex"`
	MaxFrame int      `json:"max_frame_size"`
	Wire     hexBytes `json:"wire_hex"`
	Expect   struct {
		Hint      hexBytes `json:"key_hint_hex"`
		Flags     byte
		FrameType byte     `json:"frame_type"`
		IDHash    hexBytes `json:"client_id_hash_hex"`
		Plaintext hexBytes `json:"plaintext_hex"`
		AAD       hexBytes `json:"aad_hex"`
		Server    datagramServer
		Outcome   vectorOutcome
	}
}

type datagramNegative struct {
	Name, Comment string
	Server        datagramServer
	Wire          hexBytes `json:"wire_hex"`
	SendTimes     int      `json:"send_times"`
	Outcome       vectorOutcome
}

type datagramScenarioVector struct {
	Name         string
	Server       datagramServer
	Length       int   `json:"sequence_length"`
	WindowMS     int64 `json:"sequence_window_ms"`
	MaxPerSource int   `json:"max_inflight_per_ip"`
	Steps        []struct {
		AtMS      int64      `json:"at_ms"`
		Source    netip.Addr `json:"src_ip"`
		Wire      hexBytes   `json:"wire_hex"`
		OpenClass string     `json:"open_class"`
		Result    string
	}
}

type vectorClient struct {
	ID     string   `json:"client_id"`
	Secret hexBytes `json:"secret_hex"`
}

type datagramServer struct {
	Clients       []vectorClient
	Port          uint16 `json:"server_port"`
	NowMS         int64  `json:"now_ms"`
	TimeWindowMS  int64  `json:"time_window_ms"`
	MaxFrame      int    `json:"max_frame_size"`
	Method        string
	AllowSequence bool `json:"allow_sequence"`
}

type vectorOutcome struct {
	Result   string
	Class    string
	Accepted string `json:"accepted_client_id"`
}

func loadDatagramVectors(t testing.TB) *datagramVectors {
	t.Helper()
	var v datagramVectors
	loadJSON(t, "testdata/libknock-udp.json", &v)
	if len(v.Positive) == 0 || len(v.Negative) == 0 || len(v.Scenarios) == 0 {
		t.Fatalf("a section is empty: %d positive, %d negative, %d scenarios", len(v.Positive), len(v.Negative), len(v.Scenarios))
	}
	return &v
}

func loadJSON(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// vectorKeyring makes the keyring of a vector's server. libknock takes IDs of up
// to 65535 bytes, knockcore only of up to 255: vectors with longer ones are
// reported by nil.
func vectorKeyring(t testing.TB, clients []vectorClient) *knockcore.Keyring {
	t.Helper()
	var list []*knockcore.Client
	for _, c := range clients {
		if knockcore.ValidateID(c.ID) != nil && len(c.ID) > 255 {
			return nil
		}
		list = append(list, &knockcore.Client{ID: c.ID, Secrets: []knockcore.Secret{knockcore.NewSecret(c.Secret)}})
	}
	k, err := knockcore.NewKeyring(list)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// config is the DatagramConfig of a vector's listener; libknock's listener
// without a method takes any.
func (s *datagramServer) config(t testing.TB) *DatagramConfig {
	t.Helper()
	methods := knockcore.NewMethodSet(knockcore.MethodUDP, knockcore.MethodUDPPassive)
	if s.AllowSequence {
		methods = knockcore.AllMethods
	}
	if s.Method != "" {
		m, err := knockcore.ParseMethod(s.Method)
		if err != nil {
			t.Fatal(err)
		}
		methods = knockcore.NewMethodSet(m)
	}
	return &DatagramConfig{Methods: methods, Ports: []uint16{s.Port}, MaxFrame: s.MaxFrame}
}

// receive does what a source does with a datagram: Open, time window, replay.
func (s *datagramServer) receive(t testing.TB, k *knockcore.Keyring, seen map[knockcore.ReplayKey]bool, nowMS int64, b []byte) (*Datagram, string, error) {
	t.Helper()
	d, cred, err := s.config(t).Open(k, knockcore.NewMACScratch(), b)
	if err != nil {
		return nil, "", err
	}
	switch age := nowMS - d.Time; {
	case age > s.TimeWindowMS:
		return nil, "", knockcore.ReasonStale
	case age < -s.TimeWindowMS:
		return nil, "", knockcore.ReasonFuture
	}
	key := knockcore.NewReplayKey(knockcore.ReplayUDP, cred.Client.ID, d.Nonce)
	if seen[key] {
		return nil, "", knockcore.ReasonReplay
	}
	seen[key] = true
	return d, cred.Client.ID, nil
}

func (v *datagramVector) datagram(t testing.TB) *Datagram {
	t.Helper()
	m, err := knockcore.ParseMethod(v.Method)
	if err != nil {
		t.Fatal(err)
	}
	d := &Datagram{
		Method: m, Port: v.Port, Time: v.Time, Session: v.Session, Sequence: len(v.SequenceID) > 0,
		Index: v.Index, Total: v.Total, ClientRandom: v.ClientRandom, Nonce: v.Nonce,
	}
	copy(d.SequenceID[:], v.SequenceID)
	for _, e := range v.Extensions {
		d.Extensions = append(d.Extensions, TLV{e.Type, e.Value})
	}
	return d
}
