// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
)

// validateSteps reports the first thing wrong with a knock by port sequence.
func (k *Knock) validateSteps() error {
	problem := ""
	switch {
	case len(k.Steps) == 0 && k.SequenceFile == "":
		problem = "port-sequence needs its ports"
	case len(k.Steps) > 0 && k.SequenceFile != "":
		problem = "there are both a sequence and a file of sequences; keep one"
	case len(k.Steps) > sequence.MaxSteps:
		problem = fmt.Sprintf("a sequence has %d ports at most, not %d", sequence.MaxSteps, len(k.Steps))
	case k.Address.IsValid():
		problem = "port-sequence opens for the address that it comes from; pyknock and fwknop can name another"
	case k.OpenFor != 0:
		problem = "only fwknop can ask for a time"
	case k.Copies < 0 || k.Copies > MaxCopies:
		problem = fmt.Sprintf("copies are 1 to %d, not %d", MaxCopies, k.Copies)
	case k.Close:
		problem = "a port sequence does what its door is for; there is another sequence for closing"
	}
	for _, s := range k.Steps {
		if s.Port == 0 || s.Protocol != knockcore.TCP && s.Protocol != knockcore.UDP {
			problem = fmt.Sprintf("%v is no port to knock at", s)
		}
	}
	if problem != "" {
		return errors.New("checking the knock: " + problem)
	}
	return nil
}

// step knocks at the addresses, step by step, each step at all of them.
func (s *Sender) step(ctx context.Context, addrs []netip.Addr, k *Knock) (deliveries []Delivery, err error) {
	steps := k.Steps
	var file *sequence.OneTimeFile
	if k.SequenceFile != "" {
		if file, err = sequence.OpenOneTime(k.SequenceFile); err != nil {
			return nil, err
		}
		if steps = file.Current(); len(steps) == 0 {
			return nil, fmt.Errorf("all sequences of %s are used up; make new ones, here and at the server", k.SequenceFile)
		}
	}
	sources := make([]netip.Addr, len(addrs))
	for i, addr := range addrs {
		d := Delivery{To: netip.AddrPortFrom(addr, steps[0].Port)}
		sources[i] = s.Source.Unmap()
		if sources[i].IsValid() && sources[i].Is4() != addr.Is4() {
			d.Err = fmt.Errorf("source %v is of the other family", s.Source)
		}
		deliveries = append(deliveries, d)
	}
	for i := range len(steps) * max(k.Copies, 1) {
		if i > 0 {
			if err := pause(ctx, k.interval()); err != nil {
				return deliveries, err
			}
		}
		step := steps[i%len(steps)]
		for j := range deliveries {
			d := &deliveries[j]
			if d.Err != nil {
				continue
			}
			if d.Err = knockAt(ctx, k.RawSYN, sources[j], netip.AddrPortFrom(d.To.Addr(), step.Port), step.Protocol); d.Err == nil {
				d.Datagrams++
			}
		}
	}
	if file != nil {
		for _, d := range deliveries {
			if d.Err == nil { // it is out: the server has it, or will never have it
				return deliveries, file.Use(steps)
			}
		}
	}
	return deliveries, nil
}

// knockAt sends one packet.
func knockAt(ctx context.Context, raw bool, source netip.Addr, to netip.AddrPort, proto knockcore.Protocol) error {
	switch {
	case proto == knockcore.UDP:
		d := net.Dialer{}
		if source.IsValid() {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		}
		conn, err := d.DialContext(ctx, "udp", to.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte{0}) // what knockd's client sends
		return err
	case raw:
		if !source.IsValid() {
			network := "udp6"
			if to.Addr().Is4() {
				network = "udp4"
			}
			var err error
			if source, err = routeFrom(ctx, network, to); err != nil {
				return err
			}
		}
		return sendSYN(source, to)
	default:
		return touch(ctx, source, to)
	}
}
