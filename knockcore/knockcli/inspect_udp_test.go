// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// readVectors reads a file of vectors.
func readVectors[T any](t *testing.T, name string) (v T) {
	t.Helper()
	b, err := os.ReadFile("../wire/testdata/" + name)
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// inspected is what inspect answers, field by field.
type inspected map[string]any

func (in inspected) refused() string {
	reason, _ := in["reason"].(string)
	return reason
}

// inspect runs the command and checks that exit code and JSON agree.
func inspect(t *testing.T, args ...string) inspected {
	t.Helper()
	got := runIn(t, "", append([]string{"inspect"}, args...)...)
	answer := inspected{}
	if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil {
		t.Fatalf("Got %q, %v; standard error:\n%s", got.stdout, err, got.stderr)
	}
	code := 0
	if answer["ok"] != true {
		code = 1
		if want := `{"ok":false,"reason":"` + answer.refused() + "\"}\n"; got.stdout != want || answer.refused() == "" {
			t.Errorf("Got %s, want exactly %s", got.stdout, want)
		}
	}
	got.want(t, code)
	return answer
}

// wantAnswer compares an answer with its fields.
func wantAnswer(t *testing.T, got, want inspected) {
	t.Helper()
	b, _ := json.Marshal(want) // so that numbers are of one type
	same := inspected{}
	if err := json.Unmarshal(b, &same); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, same) {
		t.Errorf("Got  %v\nwant %v", got, same)
	}
}

type udpServer struct {
	Clients []struct {
		ID     string `json:"client_id"`
		Secret string `json:"secret_hex"`
	}
	Port     int   `json:"server_port"`
	Now      int64 `json:"now_ms"`
	Window   int64 `json:"time_window_ms"`
	MaxFrame int   `json:"max_frame_size"`
	Method   string
	Sequence bool `json:"allow_sequence"`
}

type udpVectors struct {
	Positive []struct {
		vector
		SequenceID string `json:"sequence_id_hex"`
		Index      uint8  `json:"sequence_index"`
		Total      uint8  `json:"sequence_total"`
		Extensions []struct {
			Type  uint16
			Value string `json:"value_hex"`
		}
		Expect struct {
			Flags  byte
			Server udpServer
		}
	} `json:"udp_knock"`
	Negative []struct {
		Name    string
		Server  udpServer
		Wire    string `json:"wire_hex"`
		Times   int    `json:"send_times"`
		Outcome struct{ Result, Class string }
	}
}

func TestInspectDatagramVectors(t *testing.T) {
	for _, v := range readVectors[udpVectors](t, "libknock-udp.json").Positive {
		t.Run(v.Name, func(t *testing.T) {
			var list []wire.TLV
			for _, e := range v.Extensions {
				value, _ := hex.DecodeString(e.Value)
				list = append(list, wire.TLV{Type: e.Type, Value: value})
			}
			extensions, _ := wire.AppendTLVs(nil, list)
			want := inspected{
				"ok": true, "method": v.Method, "client": v.Client, "port": v.Port, "timestamp_ms": v.Time,
				"flags": v.Expect.Flags, "session": v.Session, "extensions": hex.EncodeToString(extensions), "nonce": v.Nonce,
			}
			if v.Total > 0 {
				want["sequence_id"], want["index"], want["total"] = v.SequenceID, v.Index, v.Total
			}
			args := []string{"--client", v.Client, "--secret", "hex:" + v.Secret, "--port", fmt.Sprint(v.Port), v.Wire, "--at"}
			method := append([]string{"--method", v.Method}, args...)
			wantAnswer(t, inspect(t, append(method, fmt.Sprint(v.Expect.Server.Now))...), want)
			wantAnswer(t, inspect(t, append(method, fmt.Sprint(v.Time+30_000))...), want)
			wantAnswer(t, inspect(t, append(method, fmt.Sprint(v.Time-30_000))...), want)
			if got := inspect(t, append(method, fmt.Sprint(v.Time+30_001))...).refused(); got != "stale" {
				t.Errorf("Too late: %q", got)
			}
			if got := inspect(t, append(method, fmt.Sprint(v.Time-30_001))...).refused(); got != "future" {
				t.Errorf("Too early: %q", got)
			}
			for _, other := range []string{"udp", "udp-seq", "udp-passive", "udp-passive-seq"} {
				got := inspect(t, append([]string{"--method", other, "--window", "1h"}, append(args, fmt.Sprint(v.Time))...)...)
				if other != v.Method && got.refused() != "wrong_method" {
					t.Errorf("As %s: %v", other, got)
				}
			}
		})
	}
}

func TestInspectDatagramNegativeVectors(t *testing.T) {
	reasons := map[string][]string{
		"auth_failed":       {"auth_failed", "wrong_method", "wrong_port"},
		"unknown_client":    {"unknown_client"},
		"unsupported_flags": {"unsupported"},
		"time_skew":         {"stale", "future"},
		"invalid_frame":     {"malformed", "wrong_method"},
		"frame_too_large":   {"malformed"},
	}
	for _, v := range readVectors[udpVectors](t, "libknock-udp.json").Negative {
		if v.Times != 1 || v.Server.MaxFrame != wire.DefaultMaxDatagram {
			continue // inspect knows no replay, and no other greatest length
		}
		t.Run(v.Name, func(t *testing.T) {
			methods := []string{v.Server.Method}
			if v.Server.Method == "" { // a listener of libknock's that takes any
				methods = []string{"udp", "udp-passive"}
				if v.Server.Sequence {
					methods = append(methods, "udp-seq", "udp-passive-seq")
				}
			}
			s, accepted := &v.Server, false
			for _, method := range methods {
				got := inspect(t, "--method", method, "--client", s.Clients[0].ID, "--secret", "hex:"+s.Clients[0].Secret, "--port", fmt.Sprint(s.Port),
					"--at", strconv.FormatInt(s.Now, 10), "--window", fmt.Sprint(s.Window, "ms"), v.Wire)
				accepted = accepted || got["ok"] == true
				if got["ok"] != true && len(methods) == 1 && !slices.Contains(reasons[v.Outcome.Class], got.refused()) {
					t.Errorf("Got %v for %s", got, v.Outcome.Class)
				}
			}
			if want := v.Outcome.Result == "accept"; accepted != want {
				t.Errorf("Accepted: %v, want %v", accepted, want)
			}
		})
	}
}

func TestInspectDatagramUsage(t *testing.T) {
	for args, want := range map[string]string{
		"--method pyknock 00":                            "--secret is missing",
		"--method udp --secret x --client a 00":          "--port is missing",
		"--method fwknop --secret x --hmac crc32 00":     "no HMAC digest",
		"--method pyknock --secret x --window -1s 00":    "negative",
		"--method http --secret x --client a --port 1 0": "does not know",
	} {
		runIn(t, "", append([]string{"inspect"}, strings.Fields(args)...)...).want(t, 2, want)
	}
	runIn(t, "", "inspect", "--method", "pyknock", "--secret", "€", "00").want(t, 3, "latin-1")
	if got := inspect(t, "--method", "fwknop", "--secret", "x", "00").refused(); got != "unsupported" {
		t.Errorf("Without --hmac-secret: %q", got)
	}
}
