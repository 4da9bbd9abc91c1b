// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

func loadVectors(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("../wire/testdata/" + name)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type libknockServer struct {
	Clients []struct {
		ID     string   `json:"client_id"`
		Secret hexBytes `json:"secret_hex"`
	}
	Port          uint16 `json:"server_port"`
	NowMS         int64  `json:"now_ms"`
	WindowMS      int64  `json:"time_window_ms"`
	MaxFrame      int    `json:"max_frame_size"`
	Method        string
	AllowSequence bool `json:"allow_sequence"`
}

// guard makes the server of a vector.
func (s *libknockServer) guard(t *testing.T, sequences wire.UDPSequenceConfig) *guard {
	t.Helper()
	var clients []*knockcore.Client
	for _, c := range s.Clients {
		clients = append(clients, &knockcore.Client{ID: c.ID, AllServices: true, Secrets: []knockcore.Secret{knockcore.NewSecret(c.Secret)}})
	}
	methods := knockcore.NewMethodSet(knockcore.MethodUDP, knockcore.MethodUDPPassive)
	if s.AllowSequence {
		methods = libknockMethods
	}
	if s.Method != "" {
		m, err := knockcore.ParseMethod(s.Method)
		if err != nil {
			t.Fatal(err)
		}
		methods = knockcore.NewMethodSet(m)
	}
	tracker, err := wire.NewUDPSequences(sequences)
	if err != nil {
		t.Fatal(err)
	}
	return newGuard(t, setup{
		clients: clients, services: []*knockcore.Service{service("guarded", fmt.Sprint("tcp/", s.Port))},
		dispatch: DispatchConfig{Methods: methods, MaxFrame: s.MaxFrame, Sequences: tracker},
		now:      time.UnixMilli(s.NowMS), window: time.Duration(s.WindowMS) * time.Millisecond,
	})
}

func TestLibknockVectors(t *testing.T) {
	var file struct {
		Positive []struct {
			Name   string
			Wire   hexBytes `json:"wire_hex"`
			Expect struct{ Server libknockServer }
		} `json:"udp_knock"`
		Negative []struct {
			Name      string
			Server    libknockServer
			Wire      hexBytes `json:"wire_hex"`
			SendTimes int      `json:"send_times"`
			Outcome   struct{ Result string }
		}
		Scenarios []struct {
			Name         string
			Server       libknockServer
			Length       int   `json:"sequence_length"`
			WindowMS     int64 `json:"sequence_window_ms"`
			MaxPerSource int   `json:"max_inflight_per_ip"`
			Steps        []struct {
				AtMS   int64      `json:"at_ms"`
				Source netip.Addr `json:"src_ip"`
				Wire   hexBytes   `json:"wire_hex"`
				Result string
			}
		} `json:"udp_seq_scenarios"`
	}
	loadVectors(t, "libknock-udp.json", &file)
	if len(file.Positive) == 0 || len(file.Negative) == 0 || len(file.Scenarios) == 0 {
		t.Fatal("a section is empty")
	}
	for _, v := range file.Positive {
		t.Run(v.Name, func(t *testing.T) {
			g := v.Expect.Server.guard(t, wire.UDPSequenceConfig{})
			// Single parts of sequences are taken in, or refused for a length that is not
			// the configured one.
			if err := g.send(stranger, v.Wire); err != nil && (!v.Expect.Server.AllowSequence || !errors.Is(err, knockcore.ReasonMalformed)) {
				t.Fatal(err)
			}
			if got := len(g.granted()); (got == 1) == v.Expect.Server.AllowSequence {
				t.Errorf("%d grants", got)
			}
		})
	}
	for _, v := range file.Negative {
		t.Run(v.Name, func(t *testing.T) {
			g := v.Server.guard(t, wire.UDPSequenceConfig{Length: 2})
			var err error
			for range v.SendTimes {
				g.granted()
				err = g.send(stranger, v.Wire)
			}
			want := 0
			if v.Outcome.Result == "accept" && v.Name != "udp-seq-ok" && v.Name != "udp-single-to-seq-listener" {
				want = 1 // of the other two one is a part only, the other no part
			}
			if got := len(g.granted()); got != want {
				t.Errorf("%d grants, want %d: %v", got, want, err)
			}
		})
	}
	for _, v := range file.Scenarios {
		t.Run(v.Name, func(t *testing.T) {
			g := v.Server.guard(t, wire.UDPSequenceConfig{
				Length: v.Length, Window: time.Duration(v.WindowMS) * time.Millisecond, MaxPerSource: v.MaxPerSource,
			})
			for i, step := range v.Steps {
				g.setNow(time.UnixMilli(v.Server.NowMS + step.AtMS))
				err := g.send(netip.AddrPortFrom(step.Source, uint16(1000+i)), step.Wire)
				granted := len(g.granted())
				switch step.Result {
				case "pending":
					if err != nil || granted != 0 {
						t.Fatalf("step %d: %v, %d grants", i, err, granted)
					}
				case "complete":
					if err != nil || granted != 1 {
						t.Fatalf("step %d: %v, %d grants", i, err, granted)
					}
				default:
					if err == nil || granted != 0 {
						t.Fatalf("step %d: %v, %d grants; want %s", i, err, granted, step.Result)
					}
				}
			}
		})
	}
}

func TestPyknockVectors(t *testing.T) {
	var file struct {
		Vectors []struct {
			ID     string
			PSK    hexBytes                     `json:"psk_hex"`
			Wire   hexBytes                     `json:"datagram_hex"`
			Server struct{ Now, Drift float64 } `json:"pyknock_server"`
			Expect struct {
				Accept      bool
				Command, IP string
			}
		}
	}
	loadVectors(t, "pyknock.json", &file)
	// Addresses that nobody has: decoded, and refused by the gatekeeper.
	nobody := map[string]bool{"0.0.0.0": true, "255.255.255.255": true, "ff02::1": true, "::ffff:192.0.2.128": true}
	accepted := 0
	for _, v := range file.Vectors {
		t.Run(v.ID, func(t *testing.T) {
			sec, frac := math.Modf(v.Server.Now)
			g := newGuard(t, setup{
				clients: []*knockcore.Client{{
					ID: "c", AllServices: true, Pyknock: []knockcore.Secret{knockcore.NewSecret(v.PSK)}, RemoteBits4: 32, RemoteBits6: 128,
				}},
				services: services(),
				dispatch: DispatchConfig{PyknockWindow: time.Duration(v.Server.Drift * float64(time.Second))},
				now:      time.Unix(int64(sec), int64(math.Round(frac*1e9))),
			})
			err := g.send(stranger, v.Wire)
			granted := g.granted()
			switch {
			case v.Expect.Accept && nobody[v.Expect.IP]:
				if !errors.Is(err, knockcore.ReasonForbidden) {
					t.Errorf("%s: %v", v.Expect.IP, err)
				}
			case v.Expect.Accept:
				accepted++
				if err != nil {
					t.Fatal(err)
				}
				if (v.Expect.Command == "open") != (len(granted) == 3) {
					t.Errorf("%s: %d grants", v.Expect.Command, len(granted))
				}
				for _, grant := range granted {
					if grant.Prefix.Addr().String() != v.Expect.IP {
						t.Errorf("opened for %v, want %s", grant.Prefix, v.Expect.IP)
					}
				}
			case err == nil:
				t.Error("was taken")
			}
			if !v.Expect.Accept && len(granted) > 0 {
				t.Error("something was granted")
			}
		})
	}
	if accepted < 20 {
		t.Errorf("only %d were accepted", accepted)
	}
}
