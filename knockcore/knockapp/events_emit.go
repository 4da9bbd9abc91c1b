// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

var eventsDropped = prometheus.NewCounter(prometheus.CounterOpts{
	Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "events_dropped_total",
	Help: "Events that Caddy's event handlers were too slow for.",
})

const (
	// eventQueue is how many events may wait for Caddy's event handlers, which run
	// one after the other.
	eventQueue = 1024
	// eventPatience is how long a stop waits for them.
	eventPatience = 2 * time.Second
)

// emitter hands what happens to Caddy's events app, on a goroutine of its own.
type emitter struct {
	app   *caddyevents.App
	ctx   caddy.Context
	queue chan eventRecord
	ready chan struct{} // closed when all apps have started
	stop  chan struct{}
	once  sync.Once
	ended chan struct{} // nil if it was not started
}

// newEmitter finds the events app. Handlers are known when all apps have started:
// until then events wait.
func newEmitter(ctx caddy.Context) (*emitter, error) {
	mod, err := ctx.App("events")
	if err != nil {
		return nil, err
	}
	e := &emitter{
		app: mod.(*caddyevents.App), ctx: ctx,
		queue: make(chan eventRecord, eventQueue), ready: make(chan struct{}), stop: make(chan struct{}),
	}
	return e, e.app.On("started", &startedHandler{ready: e.ready})
}

// startedHandler waits for Caddy's own event.
type startedHandler struct {
	once  sync.Once
	ready chan struct{}
}

// Handle implements caddyevents.Handler.
func (s *startedHandler) Handle(context.Context, caddy.Event) error {
	s.once.Do(func() { close(s.ready) })
	return nil
}

// offer queues an event, or drops it. What nobody handles is not queued.
func (e *emitter) offer(r eventRecord) {
	if e == nil {
		return
	}
	select {
	case <-e.ready:
		if !e.app.ShouldEmit(r.name()) {
			return
		}
	default: // handlers may still come
	}
	select {
	case e.queue <- r:
	default:
		eventsDropped.Inc()
	}
}

// emitters are those that run, in the order of their start.
var emitters struct {
	sync.Mutex
	running []*emitter
}

func (e *emitter) start() {
	e.ended = make(chan struct{})
	emitters.Lock()
	emitters.running = append(emitters.running, e)
	emitters.Unlock()
	go e.run()
}

func (e *emitter) run() {
	defer close(e.ended)
	select {
	case <-e.ready:
	case <-e.stop:
		select {
		case <-e.ready:
		default:
			return // of a configuration that never ran
		}
	}
	for {
		select {
		case r := <-e.queue:
			e.emit(&r)
			continue
		default:
		}
		select {
		case r := <-e.queue:
			e.emit(&r)
		case <-e.stop:
			return
		}
	}
}

func (e *emitter) emit(r *eventRecord) {
	if e.ctx.Err() != nil { // the configuration ended while a handler took its time
		eventsDropped.Inc()
		return
	}
	if e.app.ShouldEmit(r.name()) {
		e.app.Emit(e.ctx, r.name(), r.data())
	}
}

// name is how Caddy's event handlers know the event.
func (r *eventRecord) name() string { return "knock." + r.Event }

// close ends the emitter when the queue is empty, or after a moment.
func (e *emitter) close() {
	if e == nil {
		return
	}
	e.once.Do(func() { close(e.stop) })
	emitters.Lock()
	emitters.running = slices.DeleteFunc(emitters.running, func(other *emitter) bool { return other == e })
	emitters.Unlock()
	if e.ended == nil {
		return
	}
	select {
	case <-e.ended:
	case <-time.After(eventPatience):
	}
}

// tellProcess makes known what belongs to no configuration: the events app of the
// one that started last hears it.
func tellProcess(r eventRecord) {
	happened.add(r)
	emitters.Lock()
	defer emitters.Unlock()
	if n := len(emitters.running); n > 0 {
		emitters.running[n-1].offer(r)
	}
}

// sampler lets one event of a class through at a time and counts the others. The
// zero value is not ready: interval must be set.
type sampler struct {
	interval time.Duration

	mu      sync.Mutex
	classes map[refusalClass]*refusalCount
}

// refusalClass is what makes refusals alike: both are enums, so that there are few.
type refusalClass struct {
	method knockcore.Method
	reason knockcore.Reason
}

type refusalCount struct {
	next    time.Time
	leftOut int
}

// due reports whether the class may speak now, and how many it left out.
func (s *sampler) due(c refusalClass, now time.Time) (leftOut int, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := s.classes[c]
	if count == nil {
		if s.classes == nil {
			s.classes = make(map[refusalClass]*refusalCount)
		}
		count = new(refusalCount)
		s.classes[c] = count
	}
	if now.Before(count.next) {
		count.leftOut++
		return 0, false
	}
	leftOut, count.leftOut = count.leftOut, 0
	count.next = now.Add(s.interval)
	return leftOut, true
}
