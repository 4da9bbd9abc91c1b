// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// synMethods are the methods whose knocks are SYNs to the ports of services.
var synMethods = knockcore.NewMethodSet(knockcore.MethodTCPSYN, knockcore.MethodTCPSYNSeq)

// legacySYNPorts are where the parts of sequences of libknock's predecessor go.
var legacySYNPorts = knockcore.PortRange{Protocol: knockcore.TCP, Low: 1024, High: 65534}

// watch completes what a passive source has to see: for its methods and for doors.
func (s *SourceConfig) watch(a *App, services []*knockcore.Service) error {
	if s.Dispatch.Methods&synMethods != 0 {
		for _, port := range source.ProtectedPorts(services) {
			s.Watch = append(s.Watch, source.SYNTest(knockcore.PortRange{Protocol: knockcore.TCP, Low: port, High: port}))
		}
		if s.Dispatch.SYN.Legacy && s.Dispatch.Methods.Has(knockcore.MethodTCPSYNSeq) {
			s.Watch = append(s.Watch, source.SYNTest(legacySYNPorts))
		}
	}
	if s.Dispatch.Methods.Has(knockcore.MethodPortSequence) {
		s.Watch = append(s.Watch, a.doorFilter()...)
	}
	s.Watch = s.Watch.Simplify()
	if len(s.Watch) == 0 {
		return fmt.Errorf("there is nothing to watch: no service has a port, no door is configured, and `ports` lists none")
	}
	return s.Watch.Validate()
}

// watching is what the configuration wants of its passive inputs.
func (s *SourceConfig) watching() source.Watching {
	return source.Watching{Filter: s.Watch, Drop: s.Drop, Interfaces: s.Interfaces, Targets: s.Targets}
}

// reaches are what the source sees by an input.
func (s *SourceConfig) reaches(in *SourceInput) (list []source.Reach) {
	if !s.Passive {
		r := in.Reach
		r.Methods = s.Dispatch.Methods
		return []source.Reach{r}
	}
	for _, t := range s.Watch {
		list = append(list, source.Reach{Ports: t.Ports, Methods: s.Dispatch.Methods})
	}
	return list
}

// apart reports whether two passive sources look at different interfaces.
func (s *SourceConfig) apart(o *SourceConfig) bool {
	if !s.Passive || !o.Passive || len(s.Interfaces) == 0 || len(o.Interfaces) == 0 {
		return false
	}
	meet := func(a, b []string) bool {
		return slices.ContainsFunc(a, func(name string) bool { return source.MatchesInterface(b, name) })
	}
	return !meet(s.Interfaces, o.Interfaces) && !meet(o.Interfaces, s.Interfaces)
}

// inTheWay finds an input of another source that sees what this one sees.
func (s *SourceConfig) inTheWay(in *SourceInput, others []*SourceConfig) *SourceInput {
	for _, o := range others {
		for i := range o.Inputs {
			other := &o.Inputs[i]
			for _, r := range s.reaches(in) {
				overlaps := func(x source.Reach) bool { return r.Overlaps(x) }
				if in.Key == other.Key || !s.apart(o) && slices.ContainsFunc(o.reaches(other), overlaps) {
					return other
				}
			}
		}
	}
	return nil
}

// prepare keeps the dispatcher ready for SYNs until it is stopped.
func prepare(d *source.Dispatcher) (stop func()) {
	every := d.PrepareEvery()
	if every <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.Prepare()
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// acquireSYNSequences finds the tracker of such sequences, or makes one.
func (a *App) acquireSYNSequences(s *SourceConfig) *wire.SYNSequences {
	if !s.Dispatch.Methods.Has(knockcore.MethodTCPSYNSeq) {
		return nil
	}
	cfg := wire.SYNSequenceConfig{Length: s.Dispatch.SYN.Length, Window: s.Sequence.Window}
	fresh, err := wire.NewSYNSequences(cfg)
	if err != nil {
		return nil // it was checked while loading
	}
	key := fmt.Sprint("syn ", cfg)
	tracker, _ := openSequences.LoadOrStore(key, fresh)
	a.open.sequences = append(a.open.sequences, key)
	return tracker.(*wire.SYNSequences)
}
