// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// SourceConverter is implemented by the modules of namespace knock.sources: they
// hold configuration and say how to make the engines.
type SourceConverter interface {
	// KnockSource checks the configuration. It touches nothing outside.
	KnockSource() (*SourceConfig, error)
}

// SourceConfig is what a module of namespace knock.sources amounts to.
type SourceConfig struct {
	// Inputs are where packets come from.
	Inputs []SourceInput
	// Dispatch says which of them are knocks. Methods may be 0: all that the inputs
	// are good for and that are enabled. Sequences is the app's to fill in.
	Dispatch source.DispatchConfig
	// Methods are those that the inputs are good for.
	Methods knockcore.MethodSet
	// Sequence describes the sequences of the methods that have such.
	Sequence wire.UDPSequenceConfig
	// Queue and Workers are as in source.QueueConfig.
	Queue, Workers int
	// Passive says that the inputs are source.Passive: they see packets on their
	// way, TCP as well as UDP, as far as the kernel lets Watch through.
	Passive bool
	// Watch, Drop, Interfaces and Targets are as in source.Watching. Watch begins as the
	// ports that the configuration lists; the app adds what the methods need and what
	// doors want to see (doorFilter) before inputs open.
	Watch      source.Filter
	Drop       []knockcore.PortRange
	Interfaces []string
	Targets    []netip.Prefix
}

// SourceInput is one source of packets. It outlives configurations: those that
// name the same key share it, one after the other.
type SourceInput struct {
	// Key identifies what is opened.
	Key string
	// Label stands for it in metrics: text of the configuration.
	Label string
	// Reach is what it sees; methods are the app's to fill in.
	Reach source.Reach
	// Optional says that this host may lack what is needed, as IPv6: then Open's
	// error is source.ErrNotHere, and the source goes on without, unless it has
	// nothing else.
	Optional bool
	// Open opens it. others are the sources that are open, some of which belong to
	// the configuration that is about to end.
	Open func(others []source.Source) (source.Source, error)
}

// loadSources reads the sources and finds those that are in each other's way.
func (a *App) loadSources(ctx caddy.Context, cfg *knockcore.Config) error {
	if len(a.SourcesRaw) == 0 {
		return nil
	}
	mods, err := ctx.LoadModule(a, "SourcesRaw")
	if err != nil {
		return fmt.Errorf("loading source modules: %w", err)
	}
	for _, mod := range mods.([]any) {
		converter, ok := mod.(SourceConverter)
		if !ok {
			return fmt.Errorf("module %T is not a source", mod)
		}
		s, err := a.loadSource(converter, cfg)
		if err != nil {
			if placed, ok := mod.(interface{ place() string }); ok {
				return Placed(placed.place(), err)
			}
			return err
		}
		a.sources = append(a.sources, s)
	}
	return nil
}

func (a *App) loadSource(converter SourceConverter, cfg *knockcore.Config) (*SourceConfig, error) {
	s, err := converter.KnockSource()
	if err != nil {
		return nil, err
	}
	if err := s.narrow(cfg); err != nil {
		return nil, fmt.Errorf("source %s: %w", s.label(), err)
	}
	if s.Passive {
		if err := s.watch(a, cfg.Services); err != nil {
			return nil, fmt.Errorf("source %s: %w", s.label(), err)
		}
	}
	for i := range s.Inputs {
		before := *s
		before.Inputs = s.Inputs[:i]
		if other := s.inTheWay(&s.Inputs[i], slices.Concat(a.sources, []*SourceConfig{&before})); other != nil {
			return nil, fmt.Errorf("source %s would get the packets of source %s: give each address to one source, with all its methods", s.Inputs[i].Label, other.Label)
		}
	}
	return s, nil
}

// narrow settles which methods are accepted and checks the rest.
func (s *SourceConfig) narrow(cfg *knockcore.Config) error {
	enabled := cfg.Methods
	if enabled == 0 {
		enabled = knockcore.AllMethods
	}
	if s.Dispatch.Methods == 0 {
		s.Dispatch.Methods = s.Methods & enabled
		if s.Dispatch.Methods == 0 {
			return fmt.Errorf("none of %v is among the methods that are enabled", s.Methods.Methods())
		}
	}
	if wrong := s.Dispatch.Methods &^ s.Methods; wrong != 0 {
		return fmt.Errorf("method %v does not arrive here; expect %s", wrong.Methods()[0], methodList(s.Methods))
	}
	if off := s.Dispatch.Methods &^ enabled; off != 0 {
		return fmt.Errorf("method %v is not among the methods that are enabled; expect %s", off.Methods()[0], methodList(s.Methods&enabled))
	}
	if _, err := wire.NewUDPSequences(s.Sequence); err != nil {
		return err
	}
	return s.Dispatch.Validate(cfg.Services, cfg.Keyring)
}

func (s *SourceConfig) label() string {
	if len(s.Inputs) == 0 {
		return "without input"
	}
	return s.Inputs[0].Label
}

// window is the longest time for which a frame of any method may be good.
func (a *App) window() time.Duration {
	window := time.Duration(a.TimeWindow)
	for _, s := range a.sources {
		window = max(window, s.Dispatch.PyknockWindow, s.Dispatch.FwknopWindow)
		if s.Dispatch.Methods&synMethods != 0 {
			window = max(window, source.SYNWindow(s.Dispatch.SYN.SlotSeconds))
		}
	}
	return window
}

// stopTimeout is how long packets that wait in queues may take to be decided when
// a configuration ends.
const stopTimeout = 5 * time.Second

// runningSources is what a started configuration holds.
type runningSources struct {
	shared    []*sharedSource
	sequences []string
	release   []func() error // of passive sources
	detach    []func()
	queues    []*source.Queue
}

// startSources opens what is not open yet and then takes the packets over.
func (a *App) startSources(gate *knockcore.Gatekeeper) error {
	type started struct {
		cfg    *SourceConfig
		shared []*sharedSource
	}
	var all []started
	for _, cfg := range a.sources {
		s := started{cfg: cfg}
		var missing error
		for _, in := range cfg.Inputs {
			shared, err := acquireSource(in)
			if in.Optional && errors.Is(err, source.ErrNotHere) {
				missing = err
				continue
			}
			if err != nil {
				return err
			}
			a.open.shared = append(a.open.shared, shared)
			if passive, ok := shared.source.(source.Passive); ok {
				release, err := passive.Watch(cfg.watching())
				if err != nil {
					return err
				}
				a.open.release = append(a.open.release, release)
			}
			s.shared = append(s.shared, shared)
		}
		if len(s.shared) == 0 && missing != nil {
			return missing
		}
		all = append(all, s)
	}
	for _, s := range all {
		dispatch := s.cfg.Dispatch
		dispatch.Sequences = a.acquireSequences(s.cfg.Sequence)
		if s.cfg.Passive && dispatch.Methods.Has(knockcore.MethodPortSequence) {
			dispatch.Doors = a.doorPackets(gate)
		}
		dispatch.SYNSequences = a.acquireSYNSequences(s.cfg)
		dispatcher := source.NewDispatcher(dispatch, gate)
		a.open.detach = append(a.open.detach, prepare(dispatcher))
		queue := source.NewQueue(source.QueueConfig{
			Size: s.cfg.Queue, Workers: s.cfg.Workers, Limits: gate.Limits(),
			InOrder: dispatcher.InOrder, Handle: dispatcher.Handle,
		})
		a.open.queues = append(a.open.queues, queue)
		for _, shared := range s.shared {
			a.open.detach = append(a.open.detach, shared.packets.Attach(queue))
			shared.serve()
			a.logger.Info("waiting for knocks", zap.String("source", shared.key), zap.Any("methods", dispatch.Methods.Methods()))
		}
	}
	reading := slices.Clone(a.open.shared)
	a.reading.Store(&reading)
	return nil
}

// sourceProblems lists the sources that read no more, for people.
func (a *App) sourceProblems() (problems []string) {
	if reading := a.reading.Load(); reading != nil {
		for _, s := range *reading {
			if err := s.health(); err != nil {
				problems = append(problems, "source "+s.key+": "+err.Error())
			}
		}
	}
	return problems
}

// acquireSequences finds the tracker of such sequences, or makes one.
func (a *App) acquireSequences(cfg wire.UDPSequenceConfig) *wire.UDPSequences {
	fresh, err := wire.NewUDPSequences(cfg)
	if err != nil {
		return nil // it was checked while loading
	}
	key := fmt.Sprint(cfg)
	tracker, _ := openSequences.LoadOrStore(key, fresh)
	a.open.sequences = append(a.open.sequences, key)
	return tracker.(*wire.UDPSequences)
}

// stopSources hands the packets over to the next configuration, if there is one,
// and sees to it that those which are here are decided.
func (a *App) stopSources() error {
	open := a.open
	a.open = runningSources{}
	var errs []error
	for _, release := range open.release {
		errs = append(errs, release())
	}
	// A source that nobody else uses puts what it has still got into our queue.
	for _, s := range slices.Backward(open.shared) {
		_, err := openSources.Delete(s.key)
		errs = append(errs, err)
	}
	for _, detach := range open.detach {
		detach()
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for _, q := range open.queues {
		if dropped := q.Close(ctx); dropped > 0 {
			a.logger.Warn("packets could not be decided in time", zap.Int("count", dropped))
		}
	}
	for _, key := range open.sequences {
		_, err := openSequences.Delete(key)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
