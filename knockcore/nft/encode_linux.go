// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Offsets in headers: of the source address, the destination address behind it,
// and in TCP and UDP of the ports and TCP's flags.
const (
	saddr4, saddr6         = 12, 8
	sportOffset            = 0
	dportOffset            = 2
	tcpFlagsOffset         = 13
	tcpSyn, tcpSynAck byte = 0x02, 0x12
)

// ctReply is conntrack's number for the direction of answers.
const ctReply = 1

// Registers: reg1 and reg2 have 16 bytes; reg32 counts those of 4 bytes that
// they consist of.
const (
	reg1  = unix.NFT_REG_1
	reg2  = unix.NFT_REG_2
	reg32 = unix.NFT_REG32_00
)

// encoder turns rules into the expressions of nf_tables.
type encoder struct {
	conn  *nftables.Conn
	table *nftables.Table
}

func nativeU32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
func bigU16(v uint16) []byte    { return binary.BigEndian.AppendUint16(nil, v) }

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: data} }

// set describes a set as the library wants it.
func (s setSpec) set(table *nftables.Table) *nftables.Set {
	set := &nftables.Set{Table: table, Name: s.name, HasTimeout: s.timed(), Comment: s.comment, KeyByteOrder: binaryutil.BigEndian}
	switch s.kind {
	case kindAddr4:
		set.KeyType = nftables.TypeIPAddr
	case kindAddr6:
		set.KeyType = nftables.TypeIP6Addr
	case kindConn4:
		set.KeyType = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeIPAddr, nftables.TypeInetService)
	case kindConn6:
		set.KeyType = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService, nftables.TypeIP6Addr, nftables.TypeInetService)
	default:
		set.KeyType, set.KeyByteOrder = nftables.TypeMark, binaryutil.NativeEndian
	}
	return set
}

// rule adds the rule to the end of the chain.
func (e encoder) rule(c *nftables.Chain, r rule) (*nftables.Rule, error) {
	out, err := e.encode(c, r)
	if err != nil {
		return nil, err
	}
	return e.conn.AddRule(out), nil
}

func (e encoder) encode(c *nftables.Chain, r rule) (*nftables.Rule, error) {
	var exprs []expr.Any
	for _, m := range r.when {
		more, err := e.match(m)
		if err != nil {
			return nil, err
		}
		exprs = append(exprs, more...)
	}
	if r.counter != "" {
		exprs = append(exprs, &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: r.counter})
	}
	if r.log != nil {
		exprs = append(exprs, r.log.expr())
	}
	more, err := e.verdict(r.then)
	if err != nil {
		return nil, err
	}
	out := &nftables.Rule{Table: e.table, Chain: c, Exprs: append(exprs, more...)}
	if r.comment != "" {
		out.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
	}
	return out, nil
}

func (e encoder) match(m match) ([]expr.Any, error) {
	switch m := m.(type) {
	case matchInterface:
		name, wild := strings.CutSuffix(m.name, "*")
		data := []byte(name)
		if !wild {
			data = append(data, make([]byte, unix.IFNAMSIZ-len(name))...)
		}
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, equal(data)}, nil
	case matchProtocol:
		return protocol(m.proto), nil
	case matchNotSyn:
		return append(protocol(knockcore.TCP),
			&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlagsOffset, Len: 1},
			&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{tcpSynAck}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{tcpSyn}}), nil
	case matchNotInterface:
		data := append([]byte(m.name), make([]byte, unix.IFNAMSIZ-len(m.name))...)
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: data}}, nil
	case matchFlags:
		return append(protocol(knockcore.TCP),
			&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlagsOffset, Len: 1},
			&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{m.mask}, Xor: []byte{0}},
			equal([]byte{m.want})), nil
	case matchOwn:
		return []expr.Any{&expr.Fib{Register: reg1, FlagDADDR: true, ResultADDRTYPE: true}, equal(nativeU32(unix.RTN_LOCAL))}, nil
	case matchState:
		bit := expr.CtStateBitESTABLISHED
		if m.state == ctInvalid {
			bit = expr.CtStateBitINVALID
		}
		return []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: reg1},
			&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: nativeU32(bit), Xor: nativeU32(0)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: nativeU32(0)},
		}, nil
	case matchReply:
		return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg1}, equal([]byte{ctReply})}, nil
	case matchToHost:
		set := &nftables.Set{Table: e.table, Anonymous: true, Constant: true, KeyType: nftables.TypeFIBAddr}
		var elems []nftables.SetElement
		for _, kind := range []uint32{unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST} {
			elems = append(elems, nftables.SetElement{Key: nativeU32(kind)})
		}
		if err := e.conn.AddSet(set, elems); err != nil {
			return nil, err
		}
		return []expr.Any{
			&expr.Fib{Register: reg1, FlagDADDR: true, ResultADDRTYPE: true},
			&expr.Lookup{SourceRegister: reg1, SetName: set.Name, SetID: set.ID},
		}, nil
	case matchAddr:
		return inPrefix(m.source, m.prefix.Masked()), nil
	case matchWindow:
		return fromWindow(m.group), nil
	case matchConn:
		return connection(m), nil
	case matchPorts:
		return append(protocol(m.ports.Protocol), port(dportOffset, reg1),
			&expr.Cmp{Op: expr.CmpOpGte, Register: reg1, Data: bigU16(m.ports.Low)},
			&expr.Cmp{Op: expr.CmpOpLte, Register: reg1, Data: bigU16(m.ports.High)}), nil
	default:
		return nil, fmt.Errorf("no encoding for a match of type %T", m)
	}
}

func protocol(p knockcore.Protocol) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, equal([]byte{byte(p)})}
}

func family(v6 bool) []expr.Any {
	proto := byte(unix.NFPROTO_IPV4)
	if v6 {
		proto = unix.NFPROTO_IPV6
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1}, equal([]byte{proto})}
}

// address loads the first size bytes of the source or destination address.
func address(source, v6 bool, size int, reg uint32) expr.Any {
	offset, whole := uint32(saddr4), uint32(4)
	if v6 {
		offset, whole = saddr6, 16
	}
	if !source {
		offset += whole
	}
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(size)}
}

func port(offset, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}
}

func masked(mask netip.Addr) expr.Any {
	bits := mask.AsSlice()
	return &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: uint32(len(bits)), Mask: bits, Xor: make([]byte, len(bits))}
}

func inPrefix(source bool, p netip.Prefix) []expr.Any {
	v6, bits, data := p.Addr().Is6(), p.Bits(), p.Addr().AsSlice()
	exprs := family(v6)
	switch {
	case bits == 0:
		return exprs
	case bits%8 == 0: // as nft does it
		return append(exprs, address(source, v6, bits/8, reg1), equal(data[:bits/8]))
	default:
		return append(exprs, address(source, v6, len(data), reg1), masked(group{v6: v6, bits: bits}.mask()), equal(data))
	}
}

func fromWindow(g group) []expr.Any {
	exprs := append(family(g.v6), address(true, g.v6, g.width()/8, reg1))
	if !g.exact() {
		exprs = append(exprs, masked(g.mask()))
	}
	return append(exprs, &expr.Lookup{SourceRegister: reg1, SetName: g.setName()})
}

// connection looks up source address, source port, destination address and
// destination port, each at a multiple of 4 bytes.
func connection(m matchConn) []expr.Any {
	size, sport, daddr, dport := 4, uint32(reg32+1), uint32(reg32+2), uint32(reg32+3)
	if m.v6 {
		size, sport, daddr, dport = 16, reg2, reg32+5, reg32+9
	}
	return append(family(m.v6),
		address(true, m.v6, size, reg1), port(sportOffset, sport),
		address(false, m.v6, size, daddr), port(dportOffset, dport),
		&expr.Lookup{SourceRegister: reg1, SetName: m.set})
}

func (e encoder) verdict(v verdict) ([]expr.Any, error) {
	switch v.kind {
	case toAccept:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}, nil
	case toDrop:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}, nil
	case toContinue:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictContinue}}, nil
	case toChain:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: v.chain}}, nil
	case toReset:
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}, nil
	case toRefuse:
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}, nil
	case toPorts:
		set := &nftables.Set{
			Table: e.table, Anonymous: true, Constant: true, IsMap: true,
			KeyType:  nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
			DataType: nftables.TypeVerdict,
		}
		var elems []nftables.SetElement
		for _, p := range v.ports {
			elems = append(elems, nftables.SetElement{
				Key:         append([]byte{byte(p.proto), 0, 0, 0}, append(bigU16(p.port), 0, 0)...),
				VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: p.chain},
			})
		}
		if err := e.conn.AddSet(set, elems); err != nil {
			return nil, err
		}
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
			port(dportOffset, reg32+1),
			&expr.Lookup{SourceRegister: reg1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
		}, nil
	default:
		return nil, fmt.Errorf("no encoding for verdict %d", v.kind)
	}
}
