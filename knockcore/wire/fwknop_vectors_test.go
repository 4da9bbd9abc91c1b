// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

type fwknopVector struct {
	Name, Kind, Note string
	KeyBase64        string `json:"key_base64"`
	HMACKeyBase64    string `json:"hmac_key_base64"`
	HMACType         string `json:"hmac_type"`
	Mode             string `json:"encryption_mode"`
	Packet           string
	PacketHex        string `json:"packet_hex"`
	Now              int64
	Transport        string
	PayloadBase64    string `json:"transport_payload_base64"`
	DerivedFrom      string `json:"derived_from"`
	Fields           struct {
		Rand, Username, Version, Message, Command string
		Timestamp                                 int64
		Type                                      int    `json:"message_type"`
		AllowIP                                   string `json:"allow_ip"`
		NAT                                       string `json:"nat_access"`
		ServerAuth                                string `json:"server_auth"`
		Timeout                                   int    `json:"client_timeout"`
		DigestType                                string `json:"digest_type"`
		Ports                                     []struct {
			Proto string
			Port  uint16
		}
	}
	Expect struct{ Stage string }
	Policy struct {
		OpenPorts       []string `json:"open_ports"`
		RestrictPorts   []string `json:"restrict_ports"`
		RequireSource   bool     `json:"require_source_address"`
		RequireUsername string   `json:"require_username"`
		EnableCmdExec   *bool    `json:"enable_cmd_exec"`
		SeenPackets     []string `json:"seen_packets"`
	}
}

func (v *fwknopVector) packet(tb testing.TB) []byte {
	if v.PacketHex != "" {
		return unhex(tb, v.PacketHex)
	}
	return []byte(v.Packet)
}

func (v *fwknopVector) keys(tb testing.TB) knockcore.FwknopKeys {
	tb.Helper()
	decode := func(s string) knockcore.Secret {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			tb.Fatal(err)
		}
		return knockcore.NewSecret(b)
	}
	return knockcore.FwknopKeys{Encryption: decode(v.KeyBase64), HMAC: decode(v.HMACKeyBase64), HMACType: v.HMACType}
}

// want is what the vector's fields say, in our terms.
func (v *fwknopVector) want() *Fwknop {
	f := &Fwknop{
		Rand: v.Fields.Rand, User: v.Fields.Username, Time: v.Fields.Timestamp, Version: v.Fields.Version,
		Type: v.Fields.Type, Allow: netip.MustParseAddr(v.Fields.AllowIP), NAT: v.Fields.NAT,
		ServerAuth: v.Fields.ServerAuth, Timeout: time.Duration(v.Fields.Timeout) * time.Second,
		Command: v.Fields.Command, DigestType: v.Fields.DigestType,
	}
	for _, p := range v.Fields.Ports {
		r, err := knockcore.ParsePortRange(p.Proto + "/" + portText(p.Port))
		if err != nil {
			panic(err)
		}
		f.Ports = append(f.Ports, r)
	}
	return f
}

func readFwknopVectors(tb testing.TB) []fwknopVector {
	tb.Helper()
	var file struct{ Vectors []fwknopVector }
	data, err := os.ReadFile("testdata/fwknop.json")
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

// TestFwknopPositiveVectors: every packet that fwknopd accepts is read, but for
// those made with options that the project refuses on purpose: packets without
// HMAC, cipher modes other than CBC, and command messages.
func TestFwknopPositiveVectors(t *testing.T) {
	count := map[string]int{}
	for _, v := range readFwknopVectors(t) {
		if v.Kind != "positive" {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			keys, b := v.keys(t), v.packet(t)
			f, err := OpenFwknop(keys, b)
			switch reason := knockcore.ReasonOf(err); {
			case v.HMACType == "":
				count["no HMAC"]++
				if f != nil || reason != knockcore.ReasonUnsupported || ValidateFwknopKeys(keys) == nil {
					t.Errorf("a key pair without HMAC is taken: %v", err)
				}
				keys.HMAC = knockcore.NewSecret([]byte("a server with an HMAC key"))
				if _, err := OpenFwknop(keys, b); knockcore.ReasonOf(err) != knockcore.ReasonUnknownClient {
					t.Errorf("a packet without HMAC: %v", err)
				}
			case v.Mode != "cbc":
				count["other mode"]++
				if f != nil || reason != knockcore.ReasonAuthFailed {
					t.Errorf("mode %s: %v", v.Mode, err)
				}
			case v.Fields.Type == FwknopCommand:
				count["command"]++
				if reason != knockcore.ReasonUnsupported {
					t.Errorf("a command: %v", err)
				}
				checkFwknop(t, &v, f)
			default:
				count["accepted"]++
				if err != nil {
					t.Fatal(err)
				}
				checkFwknop(t, &v, f)
				if why := v.refusedByPolicy(t, f); why != "" {
					t.Errorf("the policy refuses: %s", why)
				}
			}
		})
	}
	for _, what := range []string{"no HMAC", "other mode", "command", "accepted"} {
		if count[what] == 0 {
			t.Errorf("no vector: %s", what)
		}
	}
}

// checkFwknop compares what was read with the vector, and seals it again with
// the same salt, which must give the same packet.
func checkFwknop(t *testing.T, v *fwknopVector, f *Fwknop) {
	t.Helper()
	if f == nil {
		t.Fatal("nothing read")
	}
	want := v.want()
	want.Canonical = f.Canonical
	if !equalFwknop(f, want) {
		t.Errorf("got  %+v\nwant %+v", f, want)
	}
	raw, err := base64.RawStdEncoding.DecodeString((fwknopPrefix + v.Packet)[:24])
	if err != nil {
		t.Fatal(err)
	}
	packet, err := f.seal(v.keys(t), [fwknopSaltLen]byte(raw[len(fwknopMarker):]))
	if err != nil || string(packet) != v.Packet {
		t.Errorf("sealed again: %s, %v", packet, err)
	}
	switch payload, _ := base64.StdEncoding.DecodeString(v.PayloadBase64); v.Transport {
	case "udp", "tcp":
		if string(payload) != v.Packet {
			t.Error("what was sent is not the packet")
		}
	case "http":
		if LooksLikeFwknop(payload) {
			t.Error("an HTTP request looks like a packet")
		}
	}
}

// TestFwknopNegativeVectors: what the stages before age say must be refused by
// OpenFwknop; age, policy and replay are the caller's, who has what it takes.
func TestFwknopNegativeVectors(t *testing.T) {
	reasons := map[string][]knockcore.Reason{
		"length":    {knockcore.ReasonMalformed},
		"prefix":    {knockcore.ReasonMalformed},
		"alphabet":  {knockcore.ReasonMalformed},
		"hmac":      {knockcore.ReasonUnknownClient},
		"cipher":    {knockcore.ReasonAuthFailed},
		"plaintext": {knockcore.ReasonAuthFailed},
		"digest":    {knockcore.ReasonAuthFailed},
		"fields":    {knockcore.ReasonMalformed, knockcore.ReasonUnsupported},
		"message":   {knockcore.ReasonMalformed, knockcore.ReasonUnsupported},
	}
	vectors := readFwknopVectors(t)
	stages := map[string]int{}
	for _, v := range vectors {
		if v.Kind == "positive" {
			continue
		}
		stages[v.Expect.Stage]++
		t.Run(v.Name, func(t *testing.T) {
			f, err := OpenFwknop(v.keys(t), v.packet(t))
			reason := knockcore.ReasonOf(err)
			switch want, ours := reasons[v.Expect.Stage]; {
			case v.Mode != "cbc":
				// A server set to another mode. Here there is no such setting: it is
				// a packet in CBC mode that is accepted elsewhere.
				i := slices.IndexFunc(vectors, func(o fwknopVector) bool { return o.Name == v.DerivedFrom })
				if err != nil || vectors[i].Mode != "cbc" || vectors[i].Packet != v.Packet {
					t.Errorf("server mode %s: %v", v.Mode, err)
				}
			case v.HMACType == "":
				// A server without HMAC key: there is none.
				if f != nil || reason != knockcore.ReasonUnsupported {
					t.Errorf("server without HMAC: %v", err)
				}
			case ours:
				if f != nil || !slices.Contains(want, reason) {
					t.Errorf("stage %s: %v", v.Expect.Stage, err)
				}
			default: // age, policy, replay
				if f == nil || f.Type != FwknopCommand && err != nil || f.Type == FwknopCommand && reason != knockcore.ReasonUnsupported {
					t.Fatal(err)
				}
				if v.refusedByPolicy(t, f) != v.Expect.Stage {
					t.Errorf("stage %s does not refuse %+v", v.Expect.Stage, f)
				}
			}
		})
	}
	for _, stage := range []string{"length", "prefix", "alphabet", "replay", "hmac", "plaintext", "digest", "fields", "message", "age", "policy"} {
		if stages[stage] == 0 {
			t.Errorf("no vector of stage %s", stage)
		}
	}
}
