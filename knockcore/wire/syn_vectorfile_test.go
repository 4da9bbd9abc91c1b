// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

type synVectors struct {
	Single    []synVector         `json:"tcp_syn"`
	Sequence  []synSeqVector      `json:"tcp_syn_seq"`
	Negative  []synNegative       `json:"tcp_syn_negative"`
	Scenarios []synScenarioVector `json:"tcp_syn_seq_scenarios"`
}

type synVectorFields struct {
	Seq    uint32 `json:"tcp_seq"`
	Window uint16 `json:"tcp_window"`
	TSval  uint32 `json:"tcp_tsval"`
}

type synVector struct {
	Name     string
	Secret   hexBytes `json:"secret_hex"`
	ClientID string   `json:"client_id"`
	Port     uint16   `json:"server_port"`
	Seconds  int64    `json:"time_window_seconds"`
	Now      int64    `json:"now_unix"`
	Slot     int64
	Fields   synVectorFields
	Zero     bool     `json:"window_was_zero_and_forced_to_1"`
	Nonce    hexBytes `json:"replay_nonce_hex"`
	Packet   *struct {
		Packet hexBytes `json:"ip_packet_hex"`
	}
}

type synSeqVector struct {
	Name     string
	Secret   hexBytes `json:"secret_hex"`
	ClientID string   `json:"client_id"`
	Port     uint16   `json:"server_port"`
	Seconds  int64    `json:"slot_seconds"`
	Now      int64    `json:"now_unix"`
	Slot     int64
	Asked    int  `json:"requested_total"`
	Total    int  `json:"effective_total"`
	Legacy   bool `json:"legacy_namespace"`
	Parts    []struct {
		Index  uint8
		Port   uint16 `json:"dst_port"`
		Fields synVectorFields
	}
}

type synNegative struct {
	Name, Comment string
	Secret        hexBytes `json:"server_secret_hex"`
	ClientID      string   `json:"server_client_id"`
	Port          uint16   `json:"server_port"`
	Seconds       int64    `json:"time_window_seconds"`
	Now           int64    `json:"now_unix"`
	Packet        hexBytes `json:"ip_packet_hex"`
	Parsed        bool     `json:"parsed_as_syn_knock"`
	Accepted      bool
}

type synScenarioVector struct {
	Name     string
	Clients  []vectorClient
	Port     uint16 `json:"server_port"`
	Length   int    `json:"sequence_length"`
	Seconds  int64  `json:"slot_seconds"`
	WindowMS int64  `json:"sequence_window_ms"`
	Start    int64  `json:"start_unix"`
	Steps    []struct {
		AtMS   int64      `json:"at_ms"`
		Source netip.Addr `json:"src_ip"`
		Port   uint16     `json:"dst_port"`
		Fields synVectorFields
		Result string
	}
}

func loadSYNVectors(t testing.TB) *synVectors {
	t.Helper()
	var v synVectors
	loadJSON(t, "testdata/libknock-syn.json", &v)
	if len(v.Single) == 0 || len(v.Sequence) == 0 || len(v.Negative) == 0 || len(v.Scenarios) == 0 {
		t.Fatalf("a section is empty: %d single, %d sequence, %d negative, %d scenarios",
			len(v.Single), len(v.Sequence), len(v.Negative), len(v.Scenarios))
	}
	return &v
}

// synPacket is the test's own reader of whole IP packets with a TCP header
// behind an IPv4 header of 20 bytes or an IPv6 header of 40. It reports false for
// what section 7.1 does not count as a knock.
//
// Left to the packet sources, which parse with gopacket and the kernel's filter:
// IPv4 options, IPv6 extension headers, fragments, direction, and the libknock
// form of packets that are sent (TTL 64, no DF, NOP NOP timestamp).
func synPacket(b []byte) (src netip.Addr, dstPort uint16, f SYNFields, ok bool) {
	head := 20
	if len(b) == 0 {
		return
	}
	if b[0]>>4 == 6 {
		head = 40
	}
	if len(b) < head+20 {
		return
	}
	if head == 40 {
		src = netip.AddrFrom16([16]byte(b[8:24]))
	} else {
		src = netip.AddrFrom4([4]byte(b[12:16]))
	}
	tcp := b[head:]
	const fin, syn, rst, ack = 1, 2, 4, 16
	size := int(tcp[12]>>4) * 4
	if tcp[13]&(syn|rst|ack) != syn || size < 20 || size > len(tcp) {
		return
	}
	f.Seq, f.Window = binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint16(tcp[14:])
	for options := tcp[20:size]; len(options) > 0 && options[0] != 0; {
		if options[0] == 1 {
			options = options[1:]
			continue
		}
		if len(options) < 2 || int(options[1]) < 2 || int(options[1]) > len(options) {
			return
		}
		if options[0] == 8 && options[1] == 10 {
			f.TSval = binary.BigEndian.Uint32(options[2:])
			return src, binary.BigEndian.Uint16(tcp[2:]), f, true
		}
		options = options[options[1]:]
	}
	return
}
