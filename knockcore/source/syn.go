// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"context"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// synMethods are the methods whose knocks are SYNs.
var synMethods = knockcore.NewMethodSet(knockcore.MethodTCPSYN, knockcore.MethodTCPSYNSeq)

// SYNWindow is by how much the middle of a SYN knock's slot may differ from the
// clock: the slots before and after count, too.
func SYNWindow(slotSeconds int64) time.Duration {
	slot := max(1, cmp.Or(slotSeconds, wire.DefaultSYNSlot))
	return time.Duration(slot)*time.Second*3/2 + time.Millisecond
}

// synIndex computes the tags of the clients; nil if no SYN is a knock here, or if
// the clients have become too many.
func (d *Dispatcher) synIndex(ring *knockcore.Keyring) *wire.SYNIndex {
	if d.cfg.Methods&synMethods == 0 {
		return nil
	}
	cfg := d.cfg.SYN
	cfg.Keyring, cfg.Methods, cfg.Ports = ring, d.cfg.Methods, d.frames.Ports
	index, err := wire.NewSYNIndex(cfg, d.gate.Now())
	if err != nil {
		return nil // too many; with the clients of the configuration, Validate says so
	}
	return index
}

// Prepare computes the SYN knocks of the time to come, so that packets do not
// wait for that. It is to be called a few times in each slot.
func (d *Dispatcher) Prepare() {
	if index := d.keys().syn; index != nil {
		index.Prepare(d.gate.Now())
	}
}

// PrepareEvery is how often Prepare is to be called; 0 means never.
func (d *Dispatcher) PrepareEvery() time.Duration {
	if d.cfg.Methods&synMethods == 0 {
		return 0
	}
	slot := min(cmp.Or(d.cfg.SYN.SlotSeconds, wire.DefaultSYNSlot), cmp.Or(d.cfg.SYN.SeqSlotSeconds, wire.DefaultSYNSlot))
	return time.Duration(max(1, slot)) * time.Second / 2
}

// syn looks a TCP packet up (libknock.md section 7). What is no knock is a
// stranger's connection: nobody is told of it, and it is charged to nobody.
func (d *Dispatcher) syn(ctx context.Context, p *Packet) error {
	const stranger = knockcore.ReasonUnknownClient
	if d.cfg.Methods&synMethods == 0 || p.TCPFlags&(SYN|ACK|RST) != SYN || !p.HasTSval {
		return stranger
	}
	index := d.keys().syn
	if index == nil {
		return knockcore.ReasonLimited
	}
	m, ok := index.Lookup(d.gate.Now(), p.To.Port(), p.TCP)
	if !ok {
		return stranger
	}
	client, slot := m.Credential.Client, d.cfg.SYN.SlotSeconds
	if m.Method == knockcore.MethodTCPSYNSeq {
		slot = d.cfg.SYN.SeqSlotSeconds
	}
	slot = max(1, cmp.Or(slot, wire.DefaultSYNSlot))
	nonce := m.ReplayNonce()
	k := knockcore.Knock{
		Client: client, Method: m.Method, Source: p.From.Addr(),
		Ports:  []knockcore.PortRange{{Low: m.Port, High: m.Port}},
		Time:   time.Unix(m.Slot*slot, 0).Add(time.Duration(slot) * time.Second / 2),
		Window: SYNWindow(slot),
		Replay: knockcore.NewReplayKey(knockcore.ReplaySYN, client.ID, nonce[:]),
	}
	if m.Method == knockcore.MethodTCPSYN {
		return d.admit(ctx, k)
	}
	// Part 0 alone spends, for the whole sequence.
	if m.Index == 0 {
		if _, err := d.gate.Preview(k); err != nil {
			return d.refuse(k.Method, p, named(err, client))
		}
		if err := d.spend(ctx, k); err != nil {
			return d.refuse(k.Method, p, named(err, client))
		}
	}
	if d.cfg.SYNSequences == nil {
		return d.refuse(k.Method, p, named(knockcore.ReasonWrongMethod, client))
	}
	complete, err := d.cfg.SYNSequences.Add(d.gate.Now(), p.From.Addr(), m)
	if err != nil {
		return d.refuse(k.Method, p, err)
	}
	if !complete {
		return nil
	}
	k.Replay = knockcore.ReplayKey{}
	return d.admit(ctx, k)
}
