// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// MaxExtensions is how many extension headers an IPv6 packet may have before its
// TCP or UDP header.
const MaxExtensions = 4

// snapLen is how much of a packet a passive source reads: the longest IPv4 header,
// or IPv6 with some extension headers, a TCP or UDP header and a payload.
const snapLen = MaxPayload + 1 + 512

// Decoder reads IP packets, as they come without a link layer's header. It keeps
// memory between calls, so that reading a whole packet allocates nothing; it is
// not safe for concurrent use. The zero value is ready.
//
// What is there counts, not what is behind it: fragments, tunnelled packets and
// packets whose lengths are lies are none.
type Decoder struct {
	v4, v6  *gopacket.DecodingLayerParser
	ip4     layers.IPv4
	ip6     ip6Header
	ext     layers.IPv6ExtensionSkipper
	tcp     layers.TCP
	udp     layers.UDP
	decoded []gopacket.LayerType
}

// The reasons why a packet is none. Its data may say more, and nobody asks.
var (
	errNoIP     = errors.New("not an IP packet")
	errFragment = errors.New("a fragment")
	errNoPorts  = errors.New("not TCP or UDP, or not whole")
)

func (d *Decoder) init() {
	d.v4 = gopacket.NewDecodingLayerParser(layers.LayerTypeIPv4, &d.ip4, &d.tcp, &d.udp)
	d.v6 = gopacket.NewDecodingLayerParser(layers.LayerTypeIPv6, &d.ip6, &d.ext, &d.tcp, &d.udp)
	d.v4.IgnoreUnsupported, d.v6.IgnoreUnsupported = true, true
}

// Decode fills in the ends, the protocol, what is read of TCP, and the payload,
// which is part of data. full is how long the packet was before data was cut off
// behind its first bytes, if it was.
func (d *Decoder) Decode(p *Packet, data []byte, full int) error {
	if d.v4 == nil {
		d.init()
	}
	var src, dst netip.Addr
	var err error
	switch {
	case len(data) == 0:
		return errNoIP
	case data[0]>>4 == 4:
		src, dst, err = d.decode4(data, full)
	case data[0]>>4 == 6:
		src, dst, err = d.decode6(data, full)
	default:
		return errNoIP
	}
	if err != nil {
		return err
	}
	at := p.At
	switch d.decoded[len(d.decoded)-1] {
	case layers.LayerTypeTCP:
		flags := d.tcp.Contents[13]
		*p = Packet{
			Protocol: knockcore.TCP, TCPFlags: flags,
			From: netip.AddrPortFrom(src, uint16(d.tcp.SrcPort)), To: netip.AddrPortFrom(dst, uint16(d.tcp.DstPort)),
			TCP: wire.SYNFields{Seq: d.tcp.Seq, Window: d.tcp.Window},
		}
		p.TCP.TSval, p.HasTSval = d.timestamp()
	case layers.LayerTypeUDP:
		if d.udp.Length < 8 || len(d.udp.Payload) < int(d.udp.Length)-8 && full == len(data) {
			return errNoPorts
		}
		*p = Packet{
			Protocol: knockcore.UDP, Payload: d.udp.Payload,
			From: netip.AddrPortFrom(src, uint16(d.udp.SrcPort)), To: netip.AddrPortFrom(dst, uint16(d.udp.DstPort)),
		}
		if len(p.Payload) > MaxPayload {
			p.Payload = p.Payload[:MaxPayload+1]
		}
	default:
		return errNoPorts
	}
	p.At = at
	return nil
}

func (d *Decoder) decode4(data []byte, full int) (src, dst netip.Addr, err error) {
	if len(data) < 20 || int(binary.BigEndian.Uint16(data[2:])) > full || binary.BigEndian.Uint16(data[2:]) == 0 {
		return src, dst, errNoIP
	}
	if err := d.v4.DecodeLayers(data, &d.decoded); err != nil || len(d.decoded) != 2 {
		return src, dst, errNoPorts
	}
	if d.ip4.Flags&layers.IPv4MoreFragments != 0 || d.ip4.FragOffset != 0 {
		return src, dst, errFragment
	}
	return netip.AddrFrom4([4]byte(d.ip4.SrcIP)), netip.AddrFrom4([4]byte(d.ip4.DstIP)), nil
}

func (d *Decoder) decode6(data []byte, full int) (src, dst netip.Addr, err error) {
	if len(data) < ip6HeaderLen || ip6HeaderLen+int(binary.BigEndian.Uint16(data[4:])) > full {
		return src, dst, errNoIP
	}
	if err := d.v6.DecodeLayers(data, &d.decoded); err != nil || len(d.decoded) < 2 || len(d.decoded) > 2+MaxExtensions {
		return src, dst, errNoPorts
	}
	for _, kind := range d.decoded[1 : len(d.decoded)-1] {
		if kind != layers.LayerTypeIPv6HopByHop && kind != layers.LayerTypeIPv6Destination {
			return src, dst, errFragment // or goes elsewhere first, or is inside of another
		}
	}
	src, dst = netip.AddrFrom16(d.ip6.src), netip.AddrFrom16(d.ip6.dst)
	if src.Is4In6() || dst.Is4In6() {
		return src, dst, errNoIP // nobody has such an address on a network
	}
	return src, dst, nil
}

// timestamp finds the value of the timestamp option.
func (d *Decoder) timestamp() (tsval uint32, ok bool) {
	for i := range d.tcp.Options {
		if o := &d.tcp.Options[i]; o.OptionType == layers.TCPOptionKindTimestamps && len(o.OptionData) == 8 {
			return binary.BigEndian.Uint32(o.OptionData), true
		}
	}
	return 0, false
}

const ip6HeaderLen = 40

// ip6Header reads the header that all IPv6 packets have. gopacket's own also reads
// the options of a hop-by-hop header, into new memory each time.
type ip6Header struct {
	layers.BaseLayer
	src, dst [16]byte
	next     layers.IPProtocol
}

// DecodeFromBytes implements gopacket.DecodingLayer.
func (h *ip6Header) DecodeFromBytes(data []byte, _ gopacket.DecodeFeedback) error {
	if len(data) < ip6HeaderLen || data[0]>>4 != 6 {
		return errNoIP
	}
	length := ip6HeaderLen + int(binary.BigEndian.Uint16(data[4:]))
	data = data[:min(length, len(data))]
	h.next = layers.IPProtocol(data[6])
	h.src, h.dst = [16]byte(data[8:24]), [16]byte(data[24:40])
	h.Contents, h.Payload = data[:ip6HeaderLen], data[ip6HeaderLen:]
	return nil
}

// CanDecode implements gopacket.DecodingLayer.
func (*ip6Header) CanDecode() gopacket.LayerClass { return layers.LayerTypeIPv6 }

// NextLayerType implements gopacket.DecodingLayer.
func (h *ip6Header) NextLayerType() gopacket.LayerType { return h.next.LayerType() }
