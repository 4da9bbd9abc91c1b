// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// pyknock verifies a datagram of pyknock's (pyknock-datagram.md section 5). What it
// is for is the address that it signs, wherever it comes from; whether the client
// may knock for another address than its own is the gatekeeper's to say.
func (d *Dispatcher) pyknock(ctx context.Context, p *Packet) error {
	s := knockcore.GetMACScratch()
	keys := d.keys().pyknock
	knock, client, key, err := keys.OpenFrom(p.From.Addr(), d.gate.Now(), d.cfg.PyknockWindow, s, p.Payload)
	s.Free()
	if err != nil {
		return d.refuse(knockcore.MethodPyknock, p, err)
	}
	if knock.Addr.Is4In6() {
		return d.refuse(knockcore.MethodPyknock, p, &knockcore.Refusal{
			Reason: knockcore.ReasonForbidden, Client: client.ID, Detail: "the signed address is IPv4 written as IPv6",
		})
	}
	k := knockcore.Knock{
		Client: client, Method: knockcore.MethodPyknock, Source: p.From.Addr(),
		For:      knockcore.AddrPrefix(knock.Addr),
		Services: d.cfg.PyknockServices,
		Time:     knock.Timestamp(),
		// Open has compared the times, more exactly than in milliseconds.
		Window: d.cfg.PyknockWindow + time.Millisecond,
		Replay: knock.ReplayKey(client.ID),
	}
	if knock.Close {
		k.Action = knockcore.ActionClose
	}
	if err = d.admit(ctx, k); err == nil {
		keys.Admitted(p.From.Addr(), key)
	}
	return err
}
