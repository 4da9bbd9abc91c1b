// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"encoding/hex"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// inspectedTCP is printed for a good TCP frame.
type inspectedTCP struct {
	OK          bool   `json:"ok"`
	Method      string `json:"method"`
	Client      string `json:"client"`
	Port        uint16 `json:"port"`
	TimestampMS int64  `json:"timestamp_ms"`
	Flags       byte   `json:"flags"`
	KnockMethod string `json:"knock_method"`
	Session     string `json:"session"`
	Extensions  string `json:"extensions"`
	Nonce       string `json:"nonce"`
	Trailing    string `json:"trailing,omitempty"`
}

// inspectTCP reads a TCP frame as a server does that accepts this method: at the
// head of a stream that may go on behind it.
func inspectTCP(in *inspection) (any, error) {
	config := wire.StreamConfig{Methods: knockcore.NewMethodSet(in.method), HintNone: in.hintNone}
	stream := config.NewStream(knockcore.NewInspectionKeyring(in.client), in.port)
	verdict := stream.Check(in.frame)
	if verdict.State != wire.Authentic {
		return nil, in.refuseTCP(verdict)
	}
	f := verdict.Frame
	if err := in.inTime(f.Time); err != nil {
		return nil, err
	}
	return inspectedTCP{
		OK: true, Method: f.Method.String(), Client: verdict.Credential.Client.ID, Port: f.Port, TimestampMS: f.Time, Flags: f.Flags(),
		KnockMethod: f.KnockMethod, Session: hex.EncodeToString(f.Session), Extensions: hex.EncodeToString(f.Extensions),
		Nonce: hex.EncodeToString(f.Nonce), Trailing: hex.EncodeToString(in.frame[f.Size:]),
	}, nil
}

// refuseTCP says why. Where a server would wait for more, or not know what it
// looks at, we know that these bytes are all there is, and what they should be.
func (in *inspection) refuseTCP(verdict wire.Verdict) error {
	_, _, err := wire.OpenTCPFrame(knockcore.NewInspectionKeyring(in.client), in.method, in.port, in.hintNone, in.frame)
	if err != nil && (verdict.State == wire.NeedMore || knockcore.ReasonOf(err) == knockcore.ReasonUnsupported) {
		return err
	}
	return &knockcore.Refusal{Reason: verdict.Reason, Client: verdict.ClientID}
}
