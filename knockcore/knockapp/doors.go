// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"fmt"
	"slices"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
)

// watchDoors makes what watches the doors. It is made while loading, since it is
// what knows which packets they want.
func (a *App) watchDoors(services []*knockcore.Service) (err error) {
	if len(a.doors) == 0 {
		return nil
	}
	for _, w := range sequence.Warnings(a.doors) {
		a.logger.Warn(w)
	}
	if a.watch, err = newDoorWatch(a.doors, a.logger.Named("doors")); err == nil {
		a.watch.services = services
	}
	return err
}

// checkDoorSources finds doors that nobody shows any packet.
func (a *App) checkDoorSources() error {
	if a.watch == nil || slices.ContainsFunc(a.sources, func(s *SourceConfig) bool {
		return s.Passive && s.Dispatch.Methods.Has(knockcore.MethodPortSequence)
	}) {
		return nil
	}
	return Placed(a.Doors[0].At, fmt.Errorf("door %s: no source sees its packets; add `source nflog` or `source packet`", a.Doors[0].Name))
}

// doorFilter is what the doors of this configuration have to see of passive
// sources that accept the method port-sequence. It is asked while loading, when
// the services are known.
func (a *App) doorFilter() source.Filter {
	if a.watch == nil {
		return nil
	}
	m := a.watch.matcher
	flags := m.TCPFlags()
	var f source.Filter
	for _, r := range m.Ports() {
		t := source.FilterTest{Ports: r}
		if r.Protocol == knockcore.TCP {
			t.Mask, t.Want = flags.Mask, flags.Want
		}
		f = append(f, t)
	}
	if !m.WantsAll() {
		return f
	}
	// Strict doors: what begins a connection, or is a datagram, to ports of no
	// service.
	for _, r := range otherPorts(a.watch.services) {
		t := source.FilterTest{Ports: r}
		if r.Protocol == knockcore.TCP {
			t = source.SYNTest(r)
		}
		f = append(f, t)
	}
	return f
}

// otherPorts are the ports that are no service's.
func otherPorts(services []*knockcore.Service) (out []knockcore.PortRange) {
	var taken []knockcore.PortRange
	for _, s := range services {
		taken = append(taken, s.Ports...)
	}
	slices.SortFunc(taken, func(a, b knockcore.PortRange) int { return int(a.Low) - int(b.Low) })
	for _, proto := range []knockcore.Protocol{knockcore.TCP, knockcore.UDP} {
		next := 1
		for _, r := range append(slices.Clone(taken), knockcore.PortRange{Protocol: proto, Low: 65535, High: 65535}) {
			end := r.Low == 65535 && r.High == 65535
			if r.Protocol != proto {
				continue
			}
			high := int(r.Low) - 1
			if end {
				high = 65535
			}
			if next <= high {
				out = append(out, knockcore.PortRange{Protocol: proto, Low: uint16(next), High: uint16(high)})
			}
			next = max(next, int(r.High)+1)
		}
	}
	return out
}

// doorPackets is what such sources show their packets; nil if there are no doors.
func (a *App) doorPackets(*knockcore.Gatekeeper) func(ctx context.Context, p *source.Packet) {
	if a.watch == nil {
		return nil
	}
	shared := a.watch.shared
	return func(_ context.Context, p *source.Packet) { shared.see(p) }
}
