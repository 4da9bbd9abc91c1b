// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// From linux/netfilter/nfnetlink_conntrack.h.
const (
	ctGet         = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaZone       = 18
	ctaFilter     = 25
	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaTupleZone  = 3

	ctaIPv4Source, ctaIPv4Dest, ctaIPv6Source, ctaIPv6Dest = 1, 2, 3, 4
	ctaProtoNumber, ctaSourcePort, ctaDestPort             = 1, 2, 3

	ctaFilterOrig  = 1      // flags: what of the original tuple has to be the same
	filterIPSource = 1 << 0 // such a flag
	nfgenmsgSize   = 4
)

// maxSources is for how many addresses conntrack is asked one by one; for more it is
// quicker to read all of it.
const maxSources = 4

// sources are the addresses that the requests are about, nil if they are too many
// or a prefix is among them.
func sources(asked []request) (list []netip.Addr) {
	seen := make(map[netip.Addr]bool)
	for _, r := range asked {
		addr := r.prefix.Addr()
		if !r.prefix.IsSingleIP() {
			return nil
		}
		if !seen[addr] {
			seen[addr], list = true, append(list, addr)
		}
	}
	if len(list) > maxSources {
		return nil
	}
	return list
}

// dump lists conntrack's entries of TCP and UDP: those that one of the addresses
// began, and others, since kernels filter poorly. No address means all.
func dump(netns int, from []netip.Addr) (flows []conntrack.Flow, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if len(from) == 0 {
		return dumpOnce(conn, unix.AF_UNSPEC, nil)
	}
	six := false
	for _, addr := range from {
		if addr.Is6() {
			six = true
			continue
		}
		filter, err := sourceFilter(addr)
		if err != nil {
			return nil, err
		}
		some, err := dumpOnce(conn, unix.AF_INET, filter)
		if err != nil { // it knows filters, but not this one
			return dumpOnce(conn, unix.AF_UNSPEC, nil)
		}
		flows = append(flows, some...)
	}
	if six {
		some, err := dumpOnce(conn, unix.AF_INET6, nil)
		if err != nil {
			return nil, err
		}
		flows = append(flows, some...)
	}
	return flows, nil
}

// sourceFilter selects the entries that an address of IPv4 began. Kernels before 5.8
// take no notice of it. For IPv6 there is none: kernels, up to 6.18 at least, list
// then all but those of the address.
func sourceFilter(addr netip.Addr) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.Nested(ctaTupleOrig, func(tuple *netlink.AttributeEncoder) error {
		tuple.Nested(ctaTupleIP, func(ip *netlink.AttributeEncoder) error {
			ip.Bytes(ctaIPv4Source, addr.AsSlice())
			return nil
		})
		return nil
	})
	ae.Nested(ctaFilter, func(filter *netlink.AttributeEncoder) error {
		filter.Uint32(ctaFilterOrig, filterIPSource)
		return nil
	})
	return ae.Encode()
}

func dumpOnce(conn *netlink.Conn, family uint8, filter []byte) (flows []conntrack.Flow, err error) {
	msgs, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: ctGet, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, filter...),
	})
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		f := parseFlow(m.Data[min(nfgenmsgSize, len(m.Data)):])
		if proto := knockcore.Protocol(f.TupleOrig.Proto.Protocol); proto == knockcore.TCP || proto == knockcore.UDP {
			flows = append(flows, f)
		}
	}
	return flows, nil
}

// attributes takes netlink attributes apart. Of thousands of entries most are not
// looked for, so this allocates nothing.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofNlAttr || size > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(kind, b[unix.SizeofNlAttr:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// parseFlow reads of an entry what tells it from others.
func parseFlow(b []byte) (f conntrack.Flow) {
	for kind, data := range attributes(b) {
		switch kind {
		case ctaTupleOrig:
			f.TupleOrig = parseTuple(data)
		case ctaTupleReply:
			f.TupleReply = parseTuple(data)
		case ctaZone:
			f.Zone = bigEndian(data)
		}
	}
	return f
}

func parseTuple(b []byte) (t conntrack.Tuple) {
	for kind, data := range attributes(b) {
		switch kind {
		case ctaTupleIP:
			for kind, data := range attributes(data) {
				switch addr, _ := netip.AddrFromSlice(data); kind {
				case ctaIPv4Source, ctaIPv6Source:
					t.IP.SourceAddress = addr
				case ctaIPv4Dest, ctaIPv6Dest:
					t.IP.DestinationAddress = addr
				}
			}
		case ctaTupleProto:
			for kind, data := range attributes(data) {
				switch kind {
				case ctaProtoNumber:
					if len(data) == 1 {
						t.Proto.Protocol = data[0]
					}
				case ctaSourcePort:
					t.Proto.SourcePort = bigEndian(data)
				case ctaDestPort:
					t.Proto.DestinationPort = bigEndian(data)
				}
			}
		case ctaTupleZone:
			t.Zone = bigEndian(data)
		}
	}
	return t
}

// bigEndian reads two bytes in network order; 0 if there are not as many.
func bigEndian(b []byte) uint16 {
	if len(b) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}
