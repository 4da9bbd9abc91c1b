// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli_test

import (
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

func TestInspectPyknockVectors(t *testing.T) {
	type vectors struct {
		Vectors []struct {
			ID, Note string
			PSK      string
			PSKHex   string `json:"psk_hex"`
			Datagram string `json:"datagram_hex"`
			Fields   struct {
				MAC       string `json:"hmac_hex"`
				Timestamp string
			}
			Server struct{ Now, Drift float64 } `json:"pyknock_server"`
			Expect struct {
				Accept      bool
				Command, IP string
				AF          string
			}
		}
	}
	accepted := 0
	for _, v := range readVectors[vectors](t, "pyknock.json").Vectors {
		t.Run(v.ID, func(t *testing.T) {
			at := strconv.FormatFloat(math.Round(v.Server.Now*1000), 'f', 0, 64)
			args := []string{"--method", "pyknock", "--at", at, v.Datagram, "--window", fmt.Sprint(v.Server.Drift, "s"), "--secret"}
			got := inspect(t, append(args, "hex:"+v.PSKHex)...)
			if !v.Expect.Accept {
				if got["ok"] != false {
					t.Errorf("Got %v: %s", got, v.Note)
				}
				return
			}
			accepted++
			made, err := strconv.ParseFloat(v.Fields.Timestamp, 64)
			if err != nil {
				t.Fatal(err)
			}
			family := "inet6"
			if netip.MustParseAddr(v.Expect.IP).Is4() {
				family = "inet"
			}
			want := inspected{
				"ok": true, "method": "pyknock", "timestamp_ms": int64(math.Round(made * 1000)), "action": v.Expect.Command,
				"address": v.Expect.IP, "family": family, "nonce": v.Fields.MAC,
			}
			if v.Expect.AF != "" && v.Expect.AF != family {
				t.Errorf("Family is %s, want %s", family, v.Expect.AF)
			}
			wantAnswer(t, got, want)
			if v.PSK != "" {
				wantAnswer(t, inspect(t, append(args, v.PSK)...), want) // latin-1, as pyknock's clients have it
			}
		})
	}
	if accepted < 20 {
		t.Errorf("Only %d were accepted", accepted)
	}
}

func TestInspectFwknopVectors(t *testing.T) {
	type vectors struct {
		Vectors []struct {
			Name, Kind, Note string
			Key              string `json:"key_base64"`
			HMACKey          string `json:"hmac_key_base64"`
			HMACType         string `json:"hmac_type"`
			Mode             string `json:"encryption_mode"`
			Packet           string
			PacketHex        string `json:"packet_hex"`
			Now              int64
			Fields           struct {
				Username  string
				Timestamp int64
				Type      int    `json:"message_type"`
				Allow     string `json:"allow_ip"`
				NAT       string `json:"nat_access"`
				Timeout   int    `json:"client_timeout"`
				Ports     []struct {
					Proto string
					Port  int
				}
			}
			Expect struct{ Stage string }
		}
	}
	reasons := map[string]string{
		"length": "malformed", "prefix": "malformed", "alphabet": "malformed", "hmac": "unknown_client", "plaintext": "auth_failed",
		"digest": "auth_failed", "fields": "malformed unsupported", "message": "malformed unsupported", "age": "stale future",
	}
	// Refused by what only a server knows: its memory, its policy for ports,
	// source and user, its setting of the cipher mode.
	policy := []string{
		"n23-replay", "n32-port-not-allowed", "n33-one-port-not-allowed", "n34-proto-not-allowed",
		"n35-restricted-port", "n36-source-required", "n37-wrong-user",
	}
	accepted := 0
	for _, v := range readVectors[vectors](t, "fwknop.json").Vectors {
		t.Run(v.Name, func(t *testing.T) {
			packet := v.PacketHex
			if packet == "" {
				packet = hex.EncodeToString([]byte(v.Packet))
			}
			args := []string{"--method", "fwknop", "--secret", "base64:" + v.Key, "--hmac-secret", "base64:" + v.HMACKey, "--hmac", v.HMACType, packet, "--at"}
			got := inspect(t, append(args, fmt.Sprint(v.Now*1000))...)
			want := ""
			switch {
			case v.HMACType == "" || v.Kind == "positive" && v.Fields.Type == wire.FwknopCommand || v.Name == "n38-command-not-enabled":
				want = "unsupported"
			case v.Kind == "positive" && v.Mode != "cbc":
				want = "auth_failed"
			case v.Kind != "positive" && v.Mode == "cbc" && !slices.Contains(policy, v.Name):
				want = reasons[v.Expect.Stage]
			}
			if want != "" {
				if got["ok"] != false || !strings.Contains(want, got.refused()) {
					t.Errorf("Got %v, want %s: %s", got, want, v.Note)
				}
				return
			}
			if got["ok"] != true || v.Kind != "positive" {
				if got["ok"] != true {
					t.Errorf("Got %v: %s", got, v.Note)
				}
				return
			}
			accepted++
			fields := inspected{
				"ok": true, "method": "fwknop", "timestamp_ms": v.Fields.Timestamp * 1000, "address": v.Fields.Allow,
				"timeout_s": v.Fields.Timeout, "user": v.Fields.Username, "message_type": v.Fields.Type, "nat": v.Fields.NAT,
				"nonce": got["nonce"],
			}
			var ports []string
			for _, p := range v.Fields.Ports {
				ports = append(ports, fmt.Sprint(p.Proto, "/", p.Port))
			}
			fields["ports"] = ports
			wantAnswer(t, got, fields)
			for late, reason := range map[int64]string{120_000: "", -120_000: "", 120_001: "stale", -120_001: "future"} {
				if got := inspect(t, append(args, fmt.Sprint(v.Fields.Timestamp*1000+late))...).refused(); got != reason {
					t.Errorf("%d ms late: %q, want %q", late, got, reason)
				}
			}
		})
	}
	if accepted < 40 {
		t.Errorf("Only %d were accepted", accepted)
	}
}
