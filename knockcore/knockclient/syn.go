// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// DefaultSlot is how long a crafted SYN is the same.
const DefaultSlot = wire.DefaultSYNSlot * time.Second

// The range of source ports of crafted SYNs: Linux's own for connections.
const synPortLow, synPortHigh = 32768, 60999

// isSYN reports whether the knock is crafted SYNs instead of datagrams.
func (k *Knock) isSYN() bool {
	return k.method() == knockcore.MethodTCPSYN || k.method() == knockcore.MethodTCPSYNSeq
}

// UsesSecret reports whether knocks of the method are made with the client's ID and
// secret, as libknock's are, for one protected port each.
func UsesSecret(m knockcore.Method) bool {
	return m.CarriesSession() || m == knockcore.MethodTCPSYN || m == knockcore.MethodTCPSYNSeq
}

// slot numbers the present time slot.
func (k *Knock) slot() int64 {
	now := time.Now
	if k.Now != nil {
		now = k.Now
	}
	return wire.SYNSlot(now().Unix(), int64(cmp.Or(k.Slot, DefaultSlot)/time.Second))
}

// synPacket makes the IP packet of one SYN (libknock.md section 7.1).
func (k *Knock) synPacket(s *shot, to netip.Addr) ([]byte, error) {
	cred := &knockcore.Credential{Client: &knockcore.Client{ID: k.ClientID}, Secret: k.Secret}
	var fields wire.SYNFields
	if k.method() == knockcore.MethodTCPSYN {
		fields = wire.SYNTag(cred, s.port, s.slot)
	} else {
		fields, _ = wire.SYNSeqTag(cred, s.port, s.slot, uint8(s.index), false)
	}
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(synPortLow + rand.IntN(synPortHigh-synPortLow+1)), DstPort: layers.TCPPort(s.port),
		Seq: fields.Seq, SYN: true, Window: fields.Window,
		Options: []layers.TCPOption{
			{OptionType: layers.TCPOptionKindNop},
			{OptionType: layers.TCPOptionKindNop},
			{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{
				byte(fields.TSval >> 24), byte(fields.TSval >> 16), byte(fields.TSval >> 8), byte(fields.TSval), 0, 0, 0, 0,
			}},
		},
	}
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	}
	src, dst := net.IP(s.local.AsSlice()), net.IP(to.AsSlice())
	if to.Is4() {
		ip = &layers.IPv4{Version: 4, TTL: 64, Id: uint16(rand.Uint32()), Protocol: layers.IPProtocolTCP, SrcIP: src, DstIP: dst}
	} else {
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: src, DstIP: dst}
	}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, fmt.Errorf("making the knock: %w", err)
	}
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp)
	if err != nil {
		return nil, fmt.Errorf("making the knock: %w", err)
	}
	return b.Bytes(), nil
}
