// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
)

// doorEvents counts what happens at doors.
var doorEvents = prometheus.NewCounterVec(prometheus.CounterOpts{
	Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "door_events_total",
	Help: "What happened at doors: stage (a step was taken), spoiled, timeout, opened, exhausted, failed, dropped.",
}, []string{"door", "event"})

// openDoors holds the doors of all configurations: packets go to the last one that
// has started, whichever source's queue they come from.
var openDoors = caddy.NewUsagePool()

type sharedDoors struct {
	mu    sync.RWMutex
	users []*doorWatch
}

// Destruct implements caddy.Destructor.
func (*sharedDoors) Destruct() error { return nil }

// doorLanes is how many knocks are decided at a time, laneSize how many wait for
// each. Those of one address keep their order.
const (
	doorLanes = 16
	laneSize  = 64
	// doorTimeout bounds what becomes of one knock.
	doorTimeout = 10 * time.Second
)

// doorWatch is what a configuration has its doors watched by.
type doorWatch struct {
	matcher *sequence.Matcher
	gate    *knockcore.Gatekeeper
	lanes   [doorLanes]chan sequence.Match
	working sync.WaitGroup
	shared  *sharedDoors
	logger  *zap.Logger
	// services are those of the configuration, for doorFilter.
	services []*knockcore.Service
}

func newDoorWatch(doors []*sequence.Door, logger *zap.Logger) (*doorWatch, error) {
	w := &doorWatch{logger: logger}
	var err error
	w.matcher, err = sequence.NewMatcher(doors, sequence.Config{Observe: w.observe})
	return w, err
}

// start takes the packets over from the configuration before, and the attempts
// that are under way.
func (w *doorWatch) start(gate *knockcore.Gatekeeper) error {
	w.gate = gate
	for i := range w.lanes {
		w.lanes[i] = make(chan sequence.Match, laneSize)
		w.working.Go(func() {
			for m := range w.lanes[i] {
				w.admit(&m)
			}
		})
	}
	value, _ := openDoors.LoadOrStore("doors", new(sharedDoors))
	s := value.(*sharedDoors)
	s.mu.Lock()
	defer s.mu.Unlock()
	w.shared = s
	var err error
	if n := len(s.users); n > 0 {
		err = w.matcher.Adopt(s.users[n-1].matcher)
	}
	s.users = append(s.users, w)
	return err
}

// stop gives the packets back to the configuration before, if its successor has
// failed, and ends when the knocks that are here are decided.
func (w *doorWatch) stop() (err error) {
	s := w.shared
	if s == nil {
		return nil
	}
	w.shared = nil
	s.mu.Lock()
	for i, u := range s.users {
		if u == w {
			if last := i == len(s.users)-1; last && i > 0 {
				err = s.users[i-1].matcher.Adopt(w.matcher)
			}
			s.users = append(s.users[:i:i], s.users[i+1:]...)
			break
		}
	}
	s.mu.Unlock()
	for i := range w.lanes {
		close(w.lanes[i])
	}
	w.working.Wait()
	if _, e := openDoors.Delete("doors"); err == nil {
		err = e
	}
	return err
}

// see shows the packet to the doors of the last configuration.
func (s *sharedDoors) see(p *source.Packet) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := len(s.users); n > 0 {
		s.users[n-1].see(p)
	}
}

func (w *doorWatch) see(p *source.Packet) {
	seen := sequence.Packet{
		Src: p.From.Addr(), Dst: p.To.Addr(), Protocol: p.Protocol, SrcPort: p.From.Port(), DstPort: p.To.Port(),
		TCPFlags: p.TCPFlags, Seq: p.TCP.Seq, Time: p.At,
	}
	var room [4]sequence.Match
	for _, m := range w.matcher.Add(&seen, room[:0]) {
		select {
		case w.lanes[laneOf(m.Source)] <- m:
		default:
			doorEvents.WithLabelValues(m.Door.Name, "dropped").Inc()
			w.gate.Refuse(knockcore.MethodPortSequence, m.Source, &knockcore.Refusal{
				Reason: knockcore.ReasonLimited, Client: m.Door.Payload.(*Door).Client, Detail: "too many knocks wait for their turn",
			})
		}
	}
}

func laneOf(a netip.Addr) int {
	b := a.As16()
	h := byte(0)
	for _, x := range b {
		h = h*31 + x
	}
	return int(h) % doorLanes
}

// admit asks the gatekeeper, which tells of the outcome.
func (w *doorWatch) admit(m *sequence.Match) {
	d := m.Door.Payload.(*Door)
	doorEvents.WithLabelValues(d.Name, "opened").Inc()
	w.logger.Info("sequence complete", zap.String("door", d.Name), zap.Stringer("source", m.Source), zap.Duration("took", m.Time.Sub(m.Started)))
	client := w.gate.Keyring().Client(d.Client)
	if client == nil {
		w.gate.Refuse(knockcore.MethodPortSequence, m.Source, &knockcore.Refusal{Reason: knockcore.ReasonUnknownClient, Detail: "the client of door " + d.Name + " is gone"})
		return
	}
	k := knockcore.Knock{
		Client: client, Method: knockcore.MethodPortSequence, Source: m.Source, Services: d.opens(), Length: time.Duration(d.OpenFor),
	}
	if d.Close {
		k.Action = knockcore.ActionClose
	}
	ctx, cancel := context.WithTimeout(context.Background(), doorTimeout)
	defer cancel()
	_, _ = w.gate.Admit(ctx, k)
}

var doorEventNames = map[sequence.EventKind]string{
	sequence.EventStage: "stage", sequence.EventSpoiled: "spoiled", sequence.EventTimeout: "timeout",
	sequence.EventExhausted: "exhausted", sequence.EventOneTimeFailed: "failed",
}

// observe counts and logs. Strangers can cause the first three.
func (w *doorWatch) observe(ev sequence.Event) {
	name := doorEventNames[ev.Kind]
	doorEvents.WithLabelValues(ev.Door.Name, name).Inc()
	switch ev.Kind {
	case sequence.EventExhausted:
		w.logger.Error("the last one-time sequence is used up: the door does not open any more", zap.String("door", ev.Door.Name))
	case sequence.EventOneTimeFailed:
		w.logger.Error("a one-time sequence can't be marked as used: the door stays closed", zap.String("door", ev.Door.Name), zap.Error(ev.Err))
	default:
		if entry := w.logger.Check(zap.DebugLevel, "sequence "+name); entry != nil {
			entry.Write(zap.String("door", ev.Door.Name), zap.Stringer("source", ev.Source), zap.Int("stage", ev.Stage))
		}
	}
}
