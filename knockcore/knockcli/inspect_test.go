// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockcli"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// vector is one entry of libknock.json, of tcp_v1, tcp_v2 or negative.
type vector struct {
	Name       string `json:"name"`
	Kind       string `json:"kind"`
	Secret     string `json:"secret_hex"`
	Client     string `json:"client_id"`
	Port       uint16 `json:"server_port"`
	Time       int64  `json:"timestamp_ms"`
	Flags      byte   `json:"flags"`
	Method     string `json:"method"`
	Session    string `json:"session_id_hex"`
	Extensions string `json:"extensions_hex"`
	Nonce      string `json:"nonce_hex"`
	Prefix     string `json:"prefix_random_hex"`
	HintMode   string `json:"hint_mode"`
	Wire       string `json:"wire_hex"`
	Prior      string `json:"prior_wire_hex"`
	Times      int    `json:"send_times"`
	Server     struct {
		Clients []struct {
			ID     string `json:"client_id"`
			Secret string `json:"secret_hex"`
		} `json:"clients"`
		Port         uint16   `json:"server_port"`
		Now          int64    `json:"now_ms"`
		Window       int64    `json:"time_window_ms"`
		HintMode     string   `json:"hint_mode"`
		Accept       []string `json:"accept_protocols"`
		Buckets      []int    `json:"frame_size_buckets"`
		MaxFrame     int      `json:"max_frame_size"`
		MaxAttempts  int      `json:"max_auth_attempts"`
		RequireKnock bool     `json:"require_knock"`
	} `json:"server"`
	Outcome struct {
		Result string `json:"result"`
		Class  string `json:"class"`
		Client string `json:"accepted_client_id"`
		Left   string `json:"bytes_left_for_application_hex"`
	} `json:"outcome"`
}

type vectors struct {
	V1       []vector `json:"tcp_v1"`
	V2       []vector `json:"tcp_v2"`
	Negative []vector `json:"negative"`
}

func loadVectors(t *testing.T) vectors {
	t.Helper()
	b, err := os.ReadFile("../wire/testdata/libknock-tcp.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.V1) == 0 || len(v.V2) == 0 || len(v.Negative) == 0 {
		t.Fatal("A section of the vectors is empty")
	}
	return v
}

func TestInspectVectors(t *testing.T) {
	v := loadVectors(t)
	for i, list := range [][]vector{v.V1, v.V2} {
		method := []string{"tcp-auth-frame-v1", "tcp-auth-envelope-v2"}[i]
		for _, v := range list {
			t.Run(v.Name, func(t *testing.T) {
				hint := v.HintMode
				if hint == "" {
					hint = "route-hint"
				}
				got := runProgram(t, nil, "inspect", "--method", method, "--client", v.Client, "--secret", "hex:"+v.Secret,
					"--port", strconv.Itoa(int(v.Port)), "--at", strconv.FormatInt(v.Time, 10), "--hint", hint, v.Wire)
				got.want(t, knockcli.ExitOK)
				id, _ := json.Marshal(v.Client)
				want := fmt.Sprintf(`{"ok":true,"method":%q,"client":%s,"port":%d,"timestamp_ms":%d,"flags":%d,"knock_method":%q,"session":%q,"extensions":%q,"nonce":%q}`+"\n",
					method, id, v.Port, v.Time, v.Flags, v.Method, v.Session, v.Extensions, v.Nonce+v.Prefix)
				if got.stdout != want || got.stderr != "" {
					t.Errorf("Got %s%swant %s", got.stdout, got.stderr, want)
				}
			})
		}
	}
}

// expressible reports whether the outcome follows from one frame and what the
// flags of inspect can say of the server.
func (v *vector) expressible() bool {
	s := &v.Server
	return v.Kind != "udp_knock" && v.Prior == "" && v.Times == 1 && !s.RequireKnock &&
		s.Buckets == nil && s.MaxAttempts == 0 && s.MaxFrame == 1024 && len(s.Accept) == 1 &&
		v.Outcome.Class != "server_proof_required" && v.Outcome.Class != "hint_mode_none_too_broad"
}

// reasons are ours for libknock's classes, where both say the same.
var reasons = map[string][]string{
	"unknown_client":      {"unknown_client"},
	"auth_failed":         {"auth_failed", "malformed", "unknown_client", "wrong_port"},
	"time_skew":           {"stale", "future"},
	"unsupported_version": {"unsupported"},
	"unsupported_flags":   {"unsupported"},
	"invalid_frame":       {"malformed"},
	"frame_too_large":     {"malformed"},
}

func TestInspectNegativeVectors(t *testing.T) {
	checked := 0
	for _, v := range loadVectors(t).Negative {
		if !v.expressible() {
			continue
		}
		checked++
		t.Run(v.Name, func(t *testing.T) {
			s := &v.Server
			hint := s.HintMode
			if hint == "" {
				hint = "route-hint"
			}
			accepted := 0
			for _, c := range s.Clients {
				got := runProgram(t, nil, "inspect", "--method", s.Accept[0], "--client", c.ID, "--secret", "hex:"+c.Secret,
					"--port", strconv.Itoa(int(s.Port)), "--at", strconv.FormatInt(s.Now, 10),
					"--window", fmt.Sprint(s.Window, "ms"), "--hint", hint, v.Wire)
				var answer struct {
					OK                       bool
					Client, Reason, Trailing string
				}
				if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil {
					t.Fatal(err)
				}
				if answer.OK {
					got.want(t, knockcli.ExitOK)
					accepted++
					if answer.Client != v.Outcome.Client || answer.Trailing != v.Outcome.Left {
						t.Errorf("Got client %q and %q behind the frame, want %q and %q", answer.Client, answer.Trailing, v.Outcome.Client, v.Outcome.Left)
					}
					continue
				}
				got.want(t, knockcli.ExitFailed)
				if want := `{"ok":false,"reason":"` + answer.Reason + "\"}\n"; got.stdout != want {
					t.Errorf("Got %s, want exactly %s", got.stdout, want)
				}
				if len(s.Clients) == 1 && !strings.Contains(fmt.Sprint(reasons[v.Outcome.Class]), answer.Reason) {
					t.Errorf("Got reason %s, want one of %v", answer.Reason, reasons[v.Outcome.Class])
				}
			}
			if want := v.Outcome.Result == "accept"; (accepted == 1) != want || accepted > 1 {
				t.Errorf("%d of %d clients fit, want one: %v", accepted, len(s.Clients), want)
			}
		})
	}
	if checked < 50 {
		t.Errorf("Only %d vectors were checked", checked)
	}
}

func sealed(t *testing.T, f wire.TCPFrame) string {
	t.Helper()
	b, err := f.Seal(&knockcore.Credential{Client: &knockcore.Client{ID: "alice"}, Secret: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

func TestInspect(t *testing.T) {
	ownProfiles(t)
	now := time.Now().UnixMilli()
	frame := sealed(t, wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: 22, Time: now, Bucket: 128})
	v1 := sealed(t, wire.TCPFrame{Method: knockcore.MethodFrameV1, Port: 22, Time: now})
	oldest := sealed(t, wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: 22, Time: math.MinInt64})
	last := sealed(t, wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: 22, Time: math.MaxInt64})
	last2 := "00" // must be another one than the frame's last byte, which is random
	if strings.HasSuffix(frame, last2) {
		last2 = "01"
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(secretText+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	usual := []string{"--client", "alice", "--secret", secretText, "--port", "22"}
	tests := map[string]struct {
		in   string
		args []string
		code int
		want string // what standard output begins with
	}{
		"now":            {"", append(usual, frame), 0, `{"ok":true,`},
		"secret file":    {"", append(usual, "--secret", "file:"+key, frame), 0, `{"ok":true,`},
		"stdin":          {frame + "\n", append(usual, "-"), 0, `{"ok":true,`},
		"blanks":         {"", append(usual, frame[:7]+"\n "+frame[7:50], frame[50:]), 0, `{"ok":true,`},
		"upper case":     {"", append(usual, strings.ToUpper(frame)), 0, `{"ok":true,`},
		"window":         {"", append(usual, "--at", fmt.Sprint(now+60_000), "--window", "1m", frame), 0, `{"ok":true,`},
		"stale":          {"", append(usual, "--at", fmt.Sprint(now+30_001), frame), 1, `{"ok":false,"reason":"stale"}`},
		"future":         {"", append(usual, "--at", fmt.Sprint(now-30_001), frame), 1, `{"ok":false,"reason":"future"}`},
		"long ago":       {"", append(usual, oldest), 1, `{"ok":false,"reason":"stale"}`},
		"far ahead":      {"", append(usual, last), 1, `{"ok":false,"reason":"future"}`},
		"farthest":       {"", append(usual, "--at", fmt.Sprint(int64(math.MinInt64)), last), 1, `{"ok":false,"reason":"future"}`},
		"empty":          {"", append(usual, ""), 1, `{"ok":false,"reason":"malformed"}`},
		"not hex":        {"", append(usual, "frame"), 1, `{"ok":false,"reason":"malformed"}`},
		"odd":            {"", append(usual, frame[1:]), 1, `{"ok":false,"reason":"malformed"}`},
		"cut":            {"", append(usual, frame[:len(frame)-2]), 1, `{"ok":false,"reason":"malformed"}`},
		"tampered":       {"", append(usual, frame[:len(frame)-2]+last2), 1, `{"ok":false,"reason":"auth_failed"}`},
		"other port":     {"", append(usual, "--port", "23", frame), 1, `{"ok":false,"reason":"unknown_client"}`},
		"other client":   {"", append(usual, "--client", "bob", frame), 1, `{"ok":false,"reason":"auth_failed"}`},
		"other method":   {"", append(usual, "--method", "tcp-auth-frame-v1", frame), 1, `{"ok":false,"reason":"unsupported"}`},
		"other hint":     {"", append(usual, "--hint", "none", frame), 1, `{"ok":false,"reason":"unknown_client"}`},
		"trailing":       {"", append(usual, "--method", "tcp-auth-frame-v1", v1+"474554"), 0, `{"ok":true,"method":"tcp-auth-frame-v1"`},
		"short secret":   {"", append(usual, "--secret", "x", frame), 1, `{"ok":false,"reason":"unknown_client"}`},
		"method of none": {"", append(usual, "--method", "http", frame), 2, ""},
		"unknown method": {"", append(usual, "--method", "v3", frame), 2, ""},
		"bad secret":     {"", append(usual, "--secret", "hex:x", frame), 3, ""},
		"no file":        {"", append(usual, "--secret", "file:/no/such", frame), 3, ""},
		"hint":           {"", append(usual, "--hint", "x", frame), 2, ""},
		"bad window":     {"", append(usual, "--window", "-1s", frame), 2, ""},
		"no frame":       {"", usual, 2, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := runIn(t, test.in, append([]string{"inspect"}, test.args...)...)
			got.want(t, test.code)
			if !strings.HasPrefix(got.stdout, test.want) || test.want == "" && got.stdout != "" {
				t.Errorf("Got %s, want %s", got.stdout, test.want)
			}
			if test.code < 2 && got.stderr != "" {
				t.Errorf("Standard error is %q, want nothing", got.stderr)
			}
			if name == "trailing" && !strings.HasSuffix(got.stdout, `,"trailing":"474554"}`+"\n") {
				t.Errorf("Got %s, want what is behind the frame", got.stdout)
			}
		})
	}
	got := runIn(t, "", append([]string{"inspect", "-v", "--at", "0"}, append(usual, frame)...)...)
	got.want(t, 1, "future", fmt.Sprintf("made in %d ms", now))
}
