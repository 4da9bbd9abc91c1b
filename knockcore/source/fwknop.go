// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// maxSkew is the greatest difference of clocks that is told, in seconds.
const maxSkew = 1 << 33

// fwknop verifies a packet of fwknop's (fwknop-spa.md sections 1.2 and 3). Each of
// the ports that it asks for has to be one of a service, which then opens as a
// whole.
func (d *Dispatcher) fwknop(ctx context.Context, p *Packet) error {
	keys := d.keys().fwknop
	packet, client, key, err := keys.OpenFrom(p.From.Addr(), p.Payload)
	if err != nil { // a command is returned along with an error
		return d.refuse(knockcore.MethodFwknop, p, err)
	}
	refuse := func(refusal knockcore.Refusal) error {
		refusal.Client = client.ID
		return d.refuse(knockcore.MethodFwknop, p, &refusal)
	}
	switch packet.Type {
	case wire.FwknopAccess, wire.FwknopAccessTimeout:
	default:
		return refuse(knockcore.Refusal{Reason: knockcore.ReasonUnsupported, Detail: "asks for forwarding (NAT access), and no service has a forward target"})
	}
	// As fwknopd does, in whole seconds. What a packet says may be thousands of
	// years off: more than a Duration holds.
	ahead, window := packet.Time-d.gate.Now().Unix(), int64(d.cfg.FwknopWindow/time.Second)
	skew := time.Duration(max(-maxSkew, min(ahead, maxSkew))) * time.Second
	switch {
	case ahead < -window:
		return refuse(knockcore.Refusal{Reason: knockcore.ReasonStale, Skew: skew})
	case ahead > window:
		return refuse(knockcore.Refusal{Reason: knockcore.ReasonFuture, Skew: skew})
	}
	k := knockcore.Knock{
		Client: client, Method: knockcore.MethodFwknop, Source: p.From.Addr(),
		Ports: packet.Ports, Length: packet.Timeout, Time: packet.Timestamp(),
		Window: time.Duration(window+1) * time.Second,
		Replay: packet.ReplayKey(client.ID),
	}
	if !packet.Allow.IsUnspecified() { // 0.0.0.0 stands for the source
		k.For = knockcore.AddrPrefix(packet.Allow)
	}
	if err = d.admit(ctx, k); err == nil {
		keys.Admitted(p.From.Addr(), key)
	}
	return err
}
