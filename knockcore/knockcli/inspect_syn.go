// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// inspectedSYN is printed for a good SYN.
type inspectedSYN struct {
	OK          bool   `json:"ok"`
	Method      string `json:"method"`
	Client      string `json:"client"`
	Port        uint16 `json:"port"`
	Slot        int64  `json:"slot"`
	TimestampMS int64  `json:"timestamp_ms"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Seq         uint32 `json:"tcp_seq"`
	Window      uint16 `json:"tcp_window"`
	TSval       uint32 `json:"tcp_tsval"`
	Nonce       string `json:"nonce"`
	Legacy      bool   `json:"legacy,omitempty"`
	Index       *uint8 `json:"index,omitempty"`
	Total       *uint8 `json:"total,omitempty"`
}

// inspectSYN reads an IP packet, as a passive source does.
func inspectSYN(in *inspection) (any, error) {
	refuse := func(reason knockcore.Reason, detail string) error {
		return &knockcore.Refusal{Reason: reason, Detail: detail}
	}
	var d source.Decoder
	var p source.Packet
	if err := d.Decode(&p, in.frame, len(in.frame)); err != nil {
		return nil, refuse(knockcore.ReasonMalformed, err.Error())
	}
	switch {
	case p.Protocol != knockcore.TCP:
		return nil, refuse(knockcore.ReasonMalformed, "not a TCP packet")
	case !source.SYNTest(knockcore.PortRange{Protocol: knockcore.TCP, High: 65535}).Passes(p.Protocol, p.To.Port(), p.TCPFlags):
		return nil, refuse(knockcore.ReasonMalformed, "not a SYN")
	case !p.HasTSval:
		return nil, refuse(knockcore.ReasonMalformed, "the SYN has no timestamp option")
	}
	slot := int64(in.slot / time.Second)
	now := time.UnixMilli(in.at)
	index, err := wire.NewSYNIndex(wire.SYNIndexConfig{
		Keyring: knockcore.NewInspectionKeyring(in.client), Methods: knockcore.NewMethodSet(knockcore.MethodTCPSYN, knockcore.MethodTCPSYNSeq),
		Ports: []uint16{in.port}, SlotSeconds: slot, SeqSlotSeconds: slot, Length: in.total, Legacy: in.legacy,
	}, now)
	if err != nil {
		return nil, refuse(knockcore.ReasonMalformed, err.Error())
	}
	m, ok := index.Lookup(now, p.To.Port(), p.TCP)
	switch {
	case !ok && p.To.Port() != in.port && !in.legacy:
		return nil, refuse(knockcore.ReasonWrongPort, fmt.Sprintf("the SYN goes to port %d", p.To.Port()))
	case !ok:
		return nil, refuse(knockcore.ReasonUnknownClient, "no knock of this client to this port in this slot or its neighbours")
	case m.Method != in.method:
		return nil, refuse(knockcore.ReasonWrongMethod, "it is a knock of "+m.Method.String())
	case in.index >= 0 && int(m.Index) != in.index:
		return nil, refuse(knockcore.ReasonMalformed, fmt.Sprintf("it is part %d", m.Index))
	}
	nonce := m.ReplayNonce()
	out := inspectedSYN{
		OK: true, Method: m.Method.String(), Client: m.Credential.Client.ID, Port: m.Port, Slot: m.Slot,
		TimestampMS: m.Slot * max(1, slot) * 1000, Source: p.From.String(), Destination: p.To.String(),
		Seq: p.TCP.Seq, Window: p.TCP.Window, TSval: p.TCP.TSval, Nonce: hex.EncodeToString(nonce[:]), Legacy: m.Legacy,
	}
	if m.Method == knockcore.MethodTCPSYNSeq {
		out.Index, out.Total = &m.Index, &m.Total
	}
	return out, nil
}
