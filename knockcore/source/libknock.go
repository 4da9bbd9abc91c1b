// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// maxRangePorts is how wide a service's range of ports may be for each of its
// ports to be a protected port.
const maxRangePorts = 16

// ProtectedPorts lists the ports that libknock's datagrams may name: the distinct
// ports of the services, TCP and UDP. A frame does not say in clear which one it
// names, so each costs another look at all keys; therefore only the lowest port of
// a range of more than 16 counts, and that is the one that clients name.
func ProtectedPorts(services []*knockcore.Service) []uint16 {
	var ports []uint16
	seen := make(map[uint16]bool)
	for _, s := range services {
		for _, r := range s.Ports {
			high := r.High
			if int(r.High)-int(r.Low) >= maxRangePorts {
				high = r.Low
			}
			for port := int(r.Low); port <= int(high); port++ {
				if !seen[uint16(port)] {
					seen[uint16(port)] = true
					ports = append(ports, uint16(port))
				}
			}
		}
	}
	return ports
}

// libknock verifies a datagram of libknock's (libknock.md section 6). method is
// what it is counted under as long as it does not tell its own.
func (d *Dispatcher) libknock(ctx context.Context, p *Packet, method knockcore.Method) error {
	if d.frames.Methods == 0 {
		return d.refuse(method, p, knockcore.ReasonMalformed)
	}
	s := knockcore.GetMACScratch()
	ring := d.gate.Keyring()
	frame, cred, err := d.frames.OpenFrom(p.From.Addr(), ring, s, p.Payload)
	s.Free()
	if err != nil {
		return d.refuse(method, p, err)
	}
	k := knockcore.Knock{
		Client: cred.Client, Method: frame.Method, Source: p.From.Addr(), Session: frame.Session,
		Ports:  []knockcore.PortRange{{Low: frame.Port, High: frame.Port}},
		Time:   time.UnixMilli(frame.Time),
		Replay: knockcore.NewReplayKey(knockcore.ReplayUDP, cred.Client.ID, frame.Nonce),
	}
	if !frame.NeedsSequence() {
		return d.admitKnown(ctx, k, ring, cred)
	}
	// A part is a frame of its own right: whatever the gatekeeper checks holds for
	// it, and its nonce is spent, before it counts. What completes the sequence is
	// the knock; its nonce is spent by then.
	if _, err := d.gate.Preview(k); err != nil {
		return d.refuse(k.Method, p, named(err, k.Client))
	}
	if err := d.spend(ctx, k); err != nil {
		return d.refuse(k.Method, p, named(err, k.Client))
	}
	if d.cfg.Sequences == nil {
		return d.refuse(k.Method, p, named(knockcore.ReasonWrongMethod, k.Client))
	}
	complete, err := d.cfg.Sequences.Add(d.gate.Now(), p.From.Addr(), cred.Client.ID, frame)
	if err != nil {
		return d.refuse(k.Method, p, err)
	}
	if !complete {
		return nil
	}
	k.Replay = knockcore.ReplayKey{}
	return d.admitKnown(ctx, k, ring, cred)
}

// admitKnown is admit that remembers where the client was admitted from.
func (d *Dispatcher) admitKnown(ctx context.Context, k knockcore.Knock, ring *knockcore.Keyring, cred *knockcore.Credential) error {
	err := d.admit(ctx, k)
	if err == nil {
		ring.Remember(k.Source, cred)
	}
	return err
}

// spend spends the nonce of a part.
func (d *Dispatcher) spend(ctx context.Context, k knockcore.Knock) error {
	wait := newPatience(ctx)
	defer wait.end()
	n := knockcore.Nonce{Key: k.Replay, Client: k.Client.ID, Time: k.Time}
	return d.gate.State().Store.Spend(wait, n, d.gate.Now(), cmp.Or(k.Window, d.gate.Window()))
}

// named makes a refusal of err that names the client.
func named(err error, client *knockcore.Client) error {
	var refusal *knockcore.Refusal
	if !errors.As(err, &refusal) {
		refusal = &knockcore.Refusal{Reason: knockcore.ReasonOf(err)}
		if refusal.Reason == knockcore.ReasonStoreError {
			refusal.Detail = err.Error()
		}
	}
	if refusal.Client == "" {
		refusal.Client = client.ID
	}
	return refusal
}
