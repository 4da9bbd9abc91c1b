// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// TestVectorsForReal plays all recorded datagrams to the running program, whose
// clock is set to the time of each.
func TestVectorsForReal(t *testing.T) {
	p := newPast(t)
	t.Run("libknock", func(t *testing.T) { libknockForReal(t, p) })
	t.Run("pyknock", func(t *testing.T) { pyknockForReal(t, p) })
	t.Run("fwknop", func(t *testing.T) { fwknopForReal(t, p) })
}

// admitted checks that there were so many grants and nothing else.
func admitted(t *testing.T, decisions map[string]int, grants int) {
	t.Helper()
	want := map[string]int{"ok": grants}
	if grants == 0 {
		want = map[string]int{}
	}
	if !maps.Equal(decisions, want) {
		t.Errorf("decided %v, want %v", decisions, want)
	}
}

// refused checks that there was one refusal, for one of the reasons if some are
// given, and no grant.
func refused(t *testing.T, decisions map[string]int, reasons ...string) {
	t.Helper()
	if len(decisions) != 1 || decisions["ok"] != 0 {
		t.Errorf("decided %v, want one refusal", decisions)
	}
	for reason := range decisions {
		if len(reasons) > 0 && !slices.Contains(reasons, reason) {
			t.Errorf("refused as %s, want %v", reason, reasons)
		}
	}
}

type server struct {
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

// load configures the server of a vector. Our socket takes neither passive
// methods nor others than it is told to.
func (s *server) load(t *testing.T, p *past, length int, windowMS int64) {
	t.Helper()
	var clients []object
	for _, c := range s.Clients {
		clients = append(clients, object{"id": c.ID, "secrets": []string{c.Secret.secret()}})
	}
	methods := []string{"pyknock", "udp"}
	if s.AllowSequence {
		methods = append(methods, "udp-seq")
	}
	if s.Method != "" && s.Method != "udp-passive" && s.Method != "udp-passive-seq" {
		methods = []string{"pyknock", s.Method}
	}
	if s.Method == "udp-passive" {
		methods = []string{"pyknock", "udp-seq"} // anything but udp
	}
	source := object{"methods": methods}
	if s.MaxFrame > 0 {
		source["max_frame"] = s.MaxFrame
	}
	if length > 0 {
		// Sequences outlive configurations. These differ from all others by some
		// nanoseconds, so that they do not know of each other.
		source["sequence_length"], source["sequence_window"] = length, fmt.Sprintf("%dms%dns", windowMS, p.count)
	}
	p.load(t, clients, []object{{"name": "guarded", "ports": []string{fmt.Sprint("tcp/", s.Port)}}}, source, object{"time_window": fmt.Sprint(s.WindowMS, "ms")})
}

func libknockForReal(t *testing.T, p *past) {
	var file struct {
		Positive []struct {
			Name   string
			Method string
			Total  int      `json:"sequence_total"`
			Wire   hexBytes `json:"wire_hex"`
			Expect struct{ Server server }
		} `json:"udp_knock"`
		Negative []struct {
			Name      string
			Server    server
			Wire      hexBytes `json:"wire_hex"`
			SendTimes int      `json:"send_times"`
			Outcome   struct{ Result string }
		}
		Scenarios []struct {
			Name         string
			Server       server
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
	for _, v := range file.Positive {
		t.Run(v.Name, func(t *testing.T) {
			length := 0
			if v.Total > 0 {
				length = v.Total
			}
			v.Expect.Server.load(t, p, length, 10_000)
			decisions := p.play(t, time.UnixMilli(v.Expect.Server.NowMS), loopback, v.Wire)
			switch v.Method {
			case "udp":
				admitted(t, decisions, 1)
			case "udp-seq":
				admitted(t, decisions, 0) // a part
			default:
				refused(t, decisions, "wrong_method") // it is not for a socket
			}
		})
	}
	for _, v := range file.Negative {
		t.Run(v.Name, func(t *testing.T) {
			v.Server.load(t, p, 3, 10_000)
			var decisions map[string]int
			for range v.SendTimes {
				decisions = p.play(t, time.UnixMilli(v.Server.NowMS), loopback, v.Wire)
			}
			switch {
			case v.Name == "udp-seq-ok":
				admitted(t, decisions, 0) // a part
			case v.Outcome.Result == "accept" && v.Name != "udp-single-to-seq-listener":
				admitted(t, decisions, 1)
			default:
				refused(t, decisions)
			}
		})
	}
	for _, v := range file.Scenarios {
		t.Run(v.Name, func(t *testing.T) {
			if v.MaxPerSource > 0 {
				t.Skip("the number of unfinished sequences is not configurable")
			}
			v.Server.load(t, p, v.Length, v.WindowMS)
			for i, step := range v.Steps {
				// 192.0.2.10 becomes 127.0.2.10.
				b := step.Source.As4()
				b[0], b[1] = 127, 0
				decisions := p.play(t, time.UnixMilli(v.Server.NowMS+step.AtMS), netip.AddrFrom4(b), step.Wire)
				switch step.Result {
				case "pending":
					admitted(t, decisions, 0)
				case "complete":
					admitted(t, decisions, 1)
				default:
					refused(t, decisions)
				}
				if t.Failed() {
					t.Fatalf("in step %d, want %s", i, step.Result)
				}
			}
		})
	}
}

func pyknockForReal(t *testing.T, p *past) {
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
	for _, v := range file.Vectors {
		t.Run(v.ID, func(t *testing.T) {
			if len(v.PSK) == 0 {
				t.Skip("an empty key is nobody's")
			}
			p.load(t, []object{{"id": "c", "pyknock": []string{v.PSK.secret()}}}, []object{{"name": "s", "ports": []string{"tcp/22"}}},
				object{"pyknock_window": fmt.Sprint(v.Server.Drift, "s")}, nil)
			sec, frac := math.Modf(v.Server.Now)
			decisions := p.play(t, time.Unix(int64(sec), int64(math.Round(frac*1e9))), loopback, v.Wire)
			signed, _ := netip.ParseAddr(v.Expect.IP)
			switch {
			case !v.Expect.Accept:
				refused(t, decisions)
			case signed.IsUnspecified() || signed.IsMulticast() || signed.Is4In6() || v.Expect.IP == "255.255.255.255":
				refused(t, decisions, "forbidden") // nobody has this address
			case v.Expect.Command == "close":
				admitted(t, decisions, 0)
			default:
				admitted(t, decisions, 1)
			}
		})
	}
}

func fwknopForReal(t *testing.T, p *past) {
	var file struct {
		Vectors []struct {
			Name, Kind    string
			KeyBase64     string `json:"key_base64"`
			HMACKeyBase64 string `json:"hmac_key_base64"`
			HMACType      string `json:"hmac_type"`
			Mode          string `json:"encryption_mode"`
			Packet        string
			PacketHex     hexBytes `json:"packet_hex"`
			Now           int64
			Fields        struct {
				Type int `json:"message_type"`
			}
			Policy struct {
				OpenPorts       []string `json:"open_ports"`
				RequireSource   bool     `json:"require_source_address"`
				RequireUsername string   `json:"require_username"`
				SeenPackets     []string `json:"seen_packets"`
			}
		}
	}
	loadVectors(t, "fwknop.json", &file)
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			switch {
			case v.Policy.RequireSource || v.Policy.RequireUsername != "":
				t.Skip("an option of fwknopd's that we do not have")
			case v.Name == "n22-wrong-mode":
				t.Skip("the server's mode is not CBC, which ours always is")
			}
			services := []object{{"name": "ssh", "ports": []string{"tcp/22"}}}
			if v.Policy.OpenPorts == nil && v.Name != "n35-restricted-port" {
				services = append(services, object{"name": "more", "ports": []string{"tcp/443", "tcp/3306", "tcp/20000-20010", "udp/1194", "udp/51820"}})
			}
			hmac := v.HMACKeyBase64
			if hmac == "" { // a server without an HMAC key does not load
				hmac = "c29tZSBITUFDIGtleQ=="
			}
			p.load(t, []object{{"id": "c", "fwknop": []object{{"encryption": "base64:" + v.KeyBase64, "hmac": "base64:" + hmac, "hmac_type": v.HMACType}}}},
				services, object{}, nil)
			packet := []byte(v.Packet)
			if v.PacketHex != nil {
				packet = v.PacketHex
			}
			if v.Policy.SeenPackets != nil {
				p.play(t, time.Unix(v.Now, 0), loopback, packet)
			}
			decisions := p.play(t, time.Unix(v.Now, 0), loopback, packet)
			switch {
			case v.Kind != "positive" || v.HMACType == "" || v.Mode != "cbc":
				refused(t, decisions)
			case v.Fields.Type != 1 && v.Fields.Type != 3:
				refused(t, decisions, "unsupported") // forwarding and commands
			case decisions["ok"] == 0 || len(decisions) != 1:
				t.Errorf("decided %v", decisions)
			}
		})
	}
}
