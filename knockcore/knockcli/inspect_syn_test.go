// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli_test

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
	"testing"
)

type synFields struct {
	Seq    uint32 `json:"tcp_seq"`
	Window uint16 `json:"tcp_window"`
	TSval  uint32 `json:"tcp_tsval"`
}

type synFile struct {
	Single []struct {
		Name     string
		Secret   string `json:"secret_hex"`
		ClientID string `json:"client_id"`
		Port     uint16 `json:"server_port"`
		Seconds  int64  `json:"time_window_seconds"`
		Now      int64  `json:"now_unix"`
		Slot     int64
		Fields   synFields
		Nonce    string `json:"replay_nonce_hex"`
		Packet   *struct {
			Hex string `json:"ip_packet_hex"`
		}
	} `json:"tcp_syn"`
	Sequence []struct {
		Name     string
		Secret   string `json:"secret_hex"`
		ClientID string `json:"client_id"`
		Port     uint16 `json:"server_port"`
		Seconds  int64  `json:"slot_seconds"`
		Now      int64  `json:"now_unix"`
		Total    int    `json:"effective_total"`
		Legacy   bool   `json:"legacy_namespace"`
		Parts    []struct {
			Index  uint8
			Port   uint16 `json:"dst_port"`
			Fields synFields
		}
	} `json:"tcp_syn_seq"`
	Negative []struct {
		Name     string
		Secret   string `json:"server_secret_hex"`
		ClientID string `json:"server_client_id"`
		Port     uint16 `json:"server_port"`
		Seconds  int64  `json:"time_window_seconds"`
		Now      int64  `json:"now_unix"`
		Hex      string `json:"ip_packet_hex"`
		Accepted bool
	} `json:"tcp_syn_negative"`
}

func synArgs(method, secret, client string, port uint16, now, seconds int64, more ...string) []string {
	return append([]string{
		"--method", method, "--secret", "hex:" + secret, "--client", client, "--port", strconv.Itoa(int(port)),
		"--at", strconv.FormatInt(now*1000, 10), "--slot", strconv.FormatInt(max(1, seconds), 10) + "s",
	}, more...)
}

func TestInspectSYNVectors(t *testing.T) {
	file := readVectors[synFile](t, "libknock-syn.json")
	var template string
	for _, v := range file.Single {
		if v.Packet == nil {
			continue
		}
		template = v.Packet.Hex
		got := inspect(t, synArgs("tcp-syn", v.Secret, v.ClientID, v.Port, v.Now, v.Seconds, v.Packet.Hex)...)
		if got["ok"] != true || got["client"] != v.ClientID || got["slot"] != float64(v.Slot) || got["tcp_seq"] != float64(v.Fields.Seq) ||
			got["tcp_window"] != float64(v.Fields.Window) || got["tcp_tsval"] != float64(v.Fields.TSval) || got["nonce"] != v.Nonce || got["index"] != nil {
			t.Errorf("%s: %v", v.Name, got)
		}
		if reason := inspect(t, synArgs("tcp-syn-seq", v.Secret, v.ClientID, v.Port, v.Now, v.Seconds, v.Packet.Hex)...).refused(); reason != "wrong_method" {
			t.Errorf("%s as the other method: %s", v.Name, reason)
		}
	}
	for _, v := range file.Negative {
		got := inspect(t, synArgs("tcp-syn", v.Secret, v.ClientID, v.Port, v.Now, v.Seconds, v.Hex)...)
		if (got["ok"] == true) != v.Accepted {
			t.Errorf("%s: %v, accepted by libknock: %v", v.Name, got, v.Accepted)
		}
	}
	if template == "" {
		t.Fatal("no packet to make others of")
	}
	for _, v := range file.Sequence {
		for _, part := range v.Parts {
			b, _ := hex.DecodeString(template)
			const tcp = 20
			binary.BigEndian.PutUint16(b[tcp+2:], part.Port)
			binary.BigEndian.PutUint32(b[tcp+4:], part.Fields.Seq)
			binary.BigEndian.PutUint16(b[tcp+14:], part.Fields.Window)
			binary.BigEndian.PutUint32(b[tcp+24:], part.Fields.TSval)
			args := synArgs("tcp-syn-seq", v.Secret, v.ClientID, v.Port, v.Now, v.Seconds, "--total", strconv.Itoa(v.Total))
			if v.Legacy {
				if got := inspect(t, append(args, hex.EncodeToString(b))...); got["ok"] == true {
					t.Errorf("%s: the older namespace counts unasked", v.Name)
				}
				args = append(args, "--legacy")
			}
			got := inspect(t, append(args, "--index", strconv.Itoa(int(part.Index)), hex.EncodeToString(b))...)
			if got["ok"] != true || got["index"] != float64(part.Index) || got["total"] != float64(v.Total) || got["port"] != float64(v.Port) {
				t.Errorf("%s part %d: %v", v.Name, part.Index, got)
			}
			if got := inspect(t, append(args, "--index", strconv.Itoa(int(part.Index)+1), hex.EncodeToString(b))...); got.refused() != "malformed" {
				t.Errorf("%s part %d as another one: %v", v.Name, part.Index, got)
			}
		}
	}
}

func TestInspectSYNUsage(t *testing.T) {
	for args, want := range map[string]string{
		"--method tcp-syn --secret x --client a 00":                       "--port is missing",
		"--method tcp-syn --secret x --client a --port 1 --slot 1500ms 0": "whole seconds",
		"--method tcp-syn-seq --secret x --client a --port 1 --total 6 0": "--total is 2 to 5",
	} {
		runIn(t, "", append([]string{"inspect"}, strings.Fields(args)...)...).want(t, 2, want)
	}
	if got := inspect(t, "--method", "tcp-syn", "--secret", "x", "--client", "a", "--port", "1", "00").refused(); got != "malformed" {
		t.Errorf("No packet: %q", got)
	}
}
