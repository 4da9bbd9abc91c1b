// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// packet4 and packet6 make packets around a TCP or UDP header with its payload.
func packet4(proto byte, options []byte, fragment uint16, inner []byte) []byte {
	b := make([]byte, 20, 20+len(options)+len(inner))
	b[0] = 0x40 | byte(5+len(options)/4)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(options)+len(inner)))
	binary.BigEndian.PutUint16(b[6:], fragment)
	b[8], b[9] = 64, proto
	copy(b[12:], []byte{192, 0, 2, 2, 192, 0, 2, 1})
	return append(append(b, options...), inner...)
}

func packet6(next byte, inner []byte) []byte {
	b := make([]byte, 40, 40+len(inner))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(inner)))
	src, dst := netip.MustParseAddr("2001:db8::2").As16(), netip.MustParseAddr("2001:db8::1").As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return append(b, inner...)
}

// extension is an extension header in front of the rest.
func extension(next byte, units int, inner []byte) []byte {
	b := make([]byte, 8+8*units)
	b[0], b[1] = next, byte(units)
	b[2], b[3] = 1, byte(len(b)-4) // PadN
	return append(b, inner...)
}

func udp(port uint16, payload string) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	return append(b, payload...)
}

func tcp(port uint16, flags byte, options []byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], port)
	copy(b[4:], []byte{1, 2, 3, 4})
	b[12], b[13] = byte(5+len(options)/4)<<4, flags
	copy(b[14:], []byte{5, 6})
	return append(b, options...)
}

var (
	timestamps = []byte{1, 1, 8, 10, 7, 8, 9, 10, 0, 0, 0, 0}
	router     = []byte{0x94, 4, 0, 0} // an option of IPv4
)

const (
	tcpProto, udpProto       = 6, 17
	hopByHop, destOpts, frag = 0, 60, 44
)

// decodeCases are packets, and whether they are any to port 62202 or SYNs to port 22.
var decodeCases = []struct {
	name   string
	packet []byte
	good   bool
}{
	{"udp", packet4(udpProto, nil, 0, udp(62202, "knock")), true},
	{"udp over IPv6", packet6(udpProto, udp(62202, "knock")), true},
	{"options", packet4(udpProto, bytes.Repeat(router, 10), 0, udp(62202, "knock")), true},
	{"syn", packet4(tcpProto, router, 0x4000, tcp(22, SYN, timestamps)), true},
	{"syn over IPv6", packet6(tcpProto, tcp(22, SYN, timestamps)), true},
	{"hop by hop", packet6(hopByHop, extension(udpProto, 0, udp(62202, "knock"))), true},
	{"two headers", packet6(hopByHop, extension(destOpts, 2, extension(tcpProto, 1, tcp(22, SYN, timestamps)))), true},
	{"four headers", packet6(destOpts, extension(destOpts, 0, extension(destOpts, 0, extension(destOpts, 0, extension(udpProto, 0, udp(62202, "knock")))))), true},
	{"five headers", packet6(destOpts, extension(destOpts, 0, extension(destOpts, 0, extension(destOpts, 0, extension(destOpts, 0, extension(udpProto, 0, udp(62202, "knock"))))))), false},
	{"first fragment", packet4(udpProto, nil, 0x2000, udp(62202, "knock")), false},
	{"last fragment", packet4(udpProto, nil, 1, udp(62202, "knock")), false},
	{"fragment of IPv6", packet6(frag, extension(udpProto, 0, udp(62202, "knock"))), false},
	{"6in4", packet4(41, nil, 0, packet6(udpProto, udp(62202, "knock"))), false},
	{"IPv6 in IPv6", packet6(41, packet6(udpProto, udp(62202, "knock"))), false},
	{"IPv4 in IPv6", packet6(4, packet4(udpProto, nil, 0, udp(62202, "knock"))), false},
	{"another port", packet4(udpProto, nil, 0, udp(62201, "knock")), false},
	{"syn-ack", packet4(tcpProto, nil, 0, tcp(22, SYN|ACK, timestamps)), false},
	{"icmp", packet4(1, nil, 0, udp(62202, "knock")), false},
	{"header cut", packet4(udpProto, nil, 0, udp(62202, "")[:6]), false},
	{"no packet", nil, false},
}

// watched is what the cases are about.
var watched = Filter{
	{Ports: knockcore.PortRange{Protocol: knockcore.UDP, Low: 62202, High: 62203}},
	SYNTest(knockcore.PortRange{Protocol: knockcore.TCP, Low: 22, High: 22}),
}

func TestDecode(t *testing.T) {
	for _, c := range decodeCases {
		var d Decoder
		var p Packet
		err := d.Decode(&p, c.packet, len(c.packet))
		if good := err == nil && watched.Passes(p.Protocol, p.To.Port(), p.TCPFlags); good != c.good {
			t.Errorf("%s: %+v, %v", c.name, p, err)
			continue
		}
		if !c.good {
			continue
		}
		want := Packet{From: netip.MustParseAddrPort("192.0.2.2:40000"), To: netip.MustParseAddrPort("192.0.2.1:62202"), Protocol: knockcore.UDP, Payload: []byte("knock")}
		if c.packet[0]>>4 == 6 {
			want.From, want.To = netip.MustParseAddrPort("[2001:db8::2]:40000"), netip.MustParseAddrPort("[2001:db8::1]:62202")
		}
		if p.Protocol == knockcore.TCP {
			want.Protocol, want.Payload, want.TCPFlags, want.HasTSval = knockcore.TCP, nil, SYN, true
			want.To = netip.AddrPortFrom(want.To.Addr(), 22)
			want.TCP.Seq, want.TCP.Window, want.TCP.TSval = 0x01020304, 0x0506, 0x0708090a
		}
		if !bytes.Equal(p.Payload, want.Payload) {
			t.Errorf("%s: payload %q", c.name, p.Payload)
		}
		p.Payload, want.Payload = nil, nil
		if p.From != want.From || p.To != want.To || p.Protocol != want.Protocol || p.TCP != want.TCP || p.HasTSval != want.HasTSval {
			t.Errorf("%s: %+v, want %+v", c.name, p, want)
		}
	}
}

// TestDecodeCut: what is cut off, or lies about its length, is none.
func TestDecodeCut(t *testing.T) {
	for _, c := range decodeCases {
		for n := range c.packet {
			var d Decoder
			var p Packet
			if d.Decode(&p, c.packet[:n], n) == nil {
				t.Errorf("%s cut to %d bytes: %+v", c.name, n, p)
			}
		}
	}
	long := packet4(udpProto, nil, 0, udp(62202, string(make([]byte, 9000))))
	var d Decoder
	var p Packet
	if err := d.Decode(&p, long[:snapLen], len(long)); err != nil || len(p.Payload) != MaxPayload+1 {
		t.Errorf("a long packet: %d bytes, %v", len(p.Payload), err)
	}
	lie := packet4(udpProto, nil, 0, udp(62202, "knock"))
	binary.BigEndian.PutUint16(lie[24:], 400)
	if d.Decode(&p, lie, len(lie)) == nil {
		t.Error("a UDP header that promises more is believed")
	}
}

// TestProgram: the kernel's filter, run here, lets through what Decode takes.
func TestProgram(t *testing.T) {
	for _, c := range decodeCases {
		// It does not look whether a header is whole, only at what it needs of it.
		if got := runProgram(t, watched, c.packet); got != c.good && c.name != "header cut" {
			t.Errorf("%s: passes %v", c.name, got)
		}
	}
	var many Filter
	for port := range uint16(2000) {
		many = append(many, FilterTest{Ports: knockcore.PortRange{Protocol: knockcore.UDP, Low: 2*port + 1, High: 2*port + 1}})
	}
	if _, err := program(many, false, nil, nil); err == nil {
		t.Error("a filter that the kernel does not take is made")
	}
}

// runProgram runs the filter but for what it asks of the kernel besides the packet,
// which are its first instructions.
func runProgram(t testing.TB, f Filter, packet []byte) bool {
	t.Helper()
	v6 := len(packet) > 0 && packet[0]>>4 == 6
	b := &builder{}
	if v6 {
		b.headers6()
	} else {
		b.headers4()
	}
	for _, test := range f {
		b.test(test)
	}
	b.add(bpf.RetConstant{Val: 0})
	vm, err := bpf.NewVM(b.list)
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(packet)
	return err == nil && n > 0
}

func TestDecodeAllocs(t *testing.T) {
	var d Decoder
	var p Packet
	for _, c := range decodeCases[:8] {
		_ = d.Decode(&p, c.packet, len(c.packet))
		if n := testing.AllocsPerRun(100, func() { _ = d.Decode(&p, c.packet, len(c.packet)) }); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

// TestDecodeVectors reads the packets that libknock's SYNs are recorded in.
func TestDecodeVectors(t *testing.T) {
	text, err := os.ReadFile("../wire/testdata/libknock-syn.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Single []struct {
			Name   string
			Port   uint16 `json:"server_port"`
			Fields struct {
				Seq    uint32 `json:"tcp_seq"`
				Window uint16 `json:"tcp_window"`
				TSval  uint32 `json:"tcp_tsval"`
			}
			Packet *struct {
				Packet string `json:"ip_packet_hex"`
			}
		} `json:"tcp_syn"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, v := range file.Single {
		if v.Packet == nil {
			continue
		}
		read++
		b, err := hex.DecodeString(v.Packet.Packet)
		if err != nil {
			t.Fatal(err)
		}
		var d Decoder
		var p Packet
		err = d.Decode(&p, b, len(b))
		if err != nil || p.To.Port() != v.Port || p.TCP.Seq != v.Fields.Seq || p.TCP.Window != v.Fields.Window || p.TCP.TSval != v.Fields.TSval || !p.HasTSval {
			t.Errorf("%s: %+v, %v", v.Name, p, err)
		}
		if !runProgram(t, Filter{SYNTest(knockcore.PortRange{Protocol: knockcore.TCP, Low: v.Port, High: v.Port})}, b) {
			t.Errorf("%s: the kernel's filter keeps it back", v.Name)
		}
	}
	if read == 0 {
		t.Error("no packet was read")
	}
}

// FuzzDecode: never a panic, never an address that is not that of the outer header,
// and nothing that the kernel's filter would not let through is needed.
func FuzzDecode(f *testing.F) {
	for _, c := range decodeCases {
		f.Add(c.packet)
	}
	all := Filter{
		{Ports: knockcore.PortRange{Protocol: knockcore.UDP, High: 65535}},
		{Ports: knockcore.PortRange{Protocol: knockcore.TCP, High: 65535}},
	}
	var d Decoder
	f.Fuzz(func(t *testing.T, b []byte) {
		at := time.Now()
		p := Packet{At: at}
		if d.Decode(&p, b, len(b)) != nil {
			return
		}
		var src, dst netip.Addr
		if b[0]>>4 == 4 {
			src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		} else {
			src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		}
		if p.From.Addr() != src || p.To.Addr() != dst || p.At != at || len(p.Payload) > MaxPayload+1 {
			t.Errorf("%x: %+v", b, p)
		}
		if !runProgram(t, all, b) {
			t.Errorf("%x: the kernel's filter would keep back %+v", b, p)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range decodeCases[:7] {
		b.Run(c.name, func(b *testing.B) {
			var d Decoder
			var p Packet
			b.ReportAllocs()
			for b.Loop() {
				_ = d.Decode(&p, c.packet, len(c.packet))
			}
		})
	}
}
