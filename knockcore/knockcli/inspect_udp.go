// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// inspectedDatagram is printed for a good libknock datagram.
type inspectedDatagram struct {
	OK          bool   `json:"ok"`
	Method      string `json:"method"`
	Client      string `json:"client"`
	Port        uint16 `json:"port"`
	TimestampMS int64  `json:"timestamp_ms"`
	Flags       byte   `json:"flags"`
	Session     string `json:"session"`
	Extensions  string `json:"extensions"`
	Nonce       string `json:"nonce"`
	*inspectedPart
}

// inspectedPart is added for a part of a sequence.
type inspectedPart struct {
	SequenceID string `json:"sequence_id"`
	Index      uint8  `json:"index"`
	Total      uint8  `json:"total"`
}

// datagramFlagsAt is where the flags stand in the clear header.
const datagramFlagsAt = wire.DatagramHeaderLen - 2

func inspectDatagram(in *inspection) (any, error) {
	config := wire.DatagramConfig{Methods: knockcore.NewMethodSet(in.method), Ports: []uint16{in.port}}
	d, cred, err := config.Open(knockcore.NewInspectionKeyring(in.client), knockcore.NewMACScratch(), in.frame)
	if err != nil {
		return nil, err
	}
	if err := in.inTime(d.Time); err != nil {
		return nil, err
	}
	extensions, err := wire.AppendTLVs(nil, d.Extensions) // as they stood: lists have one spelling
	if err != nil {
		return nil, err
	}
	result := inspectedDatagram{
		OK: true, Method: d.Method.String(), Client: cred.Client.ID, Port: d.Port, TimestampMS: d.Time,
		Flags: in.frame[datagramFlagsAt], Session: hex.EncodeToString(d.Session),
		Extensions: hex.EncodeToString(extensions), Nonce: hex.EncodeToString(d.Nonce),
	}
	if d.Sequence {
		result.inspectedPart = &inspectedPart{hex.EncodeToString(d.SequenceID[:]), d.Index, d.Total}
	}
	return result, nil
}

// inspectedPyknock is printed for a good pyknock datagram.
type inspectedPyknock struct {
	OK          bool   `json:"ok"`
	Method      string `json:"method"`
	Client      string `json:"client,omitempty"`
	TimestampMS int64  `json:"timestamp_ms"`
	Action      string `json:"action"`
	Address     string `json:"address"`
	Family      string `json:"family"`
	Nonce       string `json:"nonce"`
}

func inspectPyknock(in *inspection) (any, error) {
	// Both times are compared in whole milliseconds, the clock's unit here; what
	// wire is asked to let through beyond the window is less than one.
	window := min(in.window, math.MaxInt64-time.Millisecond) + time.Millisecond
	p, err := wire.OpenPyknock(time.UnixMilli(in.at), window, in.client.Secrets[0], in.frame)
	if err != nil {
		return nil, err
	}
	made := int64(math.Round(p.Time * 1000)) // no overflow: it lies within a window of in.at
	if err := in.inTime(made); err != nil {
		return nil, err
	}
	result := inspectedPyknock{
		OK: true, Method: in.method.String(), Client: in.client.ID, TimestampMS: made,
		Action: "open", Address: p.Addr.String(), Family: "inet6", Nonce: hex.EncodeToString(p.MAC[:]),
	}
	if p.Close {
		result.Action = "close"
	}
	if p.Addr.Is4() {
		result.Family = "inet"
	}
	return result, nil
}

// inspectedFwknop is printed for a good fwknop packet.
type inspectedFwknop struct {
	OK          bool     `json:"ok"`
	Method      string   `json:"method"`
	Client      string   `json:"client,omitempty"`
	TimestampMS int64    `json:"timestamp_ms"`
	Address     string   `json:"address"`
	Ports       []string `json:"ports"`
	TimeoutS    int64    `json:"timeout_s"`
	User        string   `json:"user"`
	MessageType int      `json:"message_type"`
	NAT         string   `json:"nat"`
	Nonce       string   `json:"nonce"`
}

// fwknopKeysOf are some keys, for checking the name of a digest.
func fwknopKeysOf(digest string) knockcore.FwknopKeys {
	return knockcore.FwknopKeys{Encryption: knockcore.NewSecret([]byte("e")), HMAC: knockcore.NewSecret([]byte("h")), HMACType: digest}
}

func inspectFwknop(in *inspection) (any, error) {
	f, err := wire.OpenFwknop(knockcore.FwknopKeys{Encryption: in.client.Secrets[0], HMAC: in.hmac, HMACType: in.hmacType}, in.frame)
	if err != nil {
		return nil, err
	}
	if err := in.inTime(f.Timestamp().UnixMilli()); err != nil {
		return nil, err
	}
	result := inspectedFwknop{
		OK: true, Method: in.method.String(), Client: in.client.ID, TimestampMS: f.Timestamp().UnixMilli(),
		Address: f.Allow.String(), TimeoutS: int64(f.Timeout / time.Second), User: f.User,
		MessageType: f.Type, NAT: f.NAT, Nonce: hex.EncodeToString(f.Canonical[:]),
	}
	for _, port := range f.Ports {
		result.Ports = append(result.Ports, port.String())
	}
	return result, nil
}

// inTime compares the frame's time with the clock, window included.
func (in *inspection) inTime(timestamp int64) error {
	window := uint64(in.window.Milliseconds())
	switch { // the differences are right as unsigned numbers, whatever overflows
	case timestamp < in.at && uint64(in.at)-uint64(timestamp) > window:
		return &knockcore.Refusal{Reason: knockcore.ReasonStale, Client: in.client.ID, Detail: fmt.Sprintf("made %d ms ago", uint64(in.at)-uint64(timestamp))}
	case timestamp > in.at && uint64(timestamp)-uint64(in.at) > window:
		return &knockcore.Refusal{Reason: knockcore.ReasonFuture, Client: in.client.ID, Detail: fmt.Sprintf("made in %d ms", uint64(timestamp)-uint64(in.at))}
	default:
		return nil
	}
}
