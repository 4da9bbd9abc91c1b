// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// DefaultMaxWindows is how many windows may be open at a time.
const DefaultMaxWindows = 4096

// Commands are what runs for windows of either address family, in order.
type Commands struct{ V4, V6 []*Template }

func (c *Commands) of(p netip.Prefix) []*Template {
	if p.Addr().Is4() {
		return c.V4
	}
	return c.V6
}

// Config says which commands run.
type Config struct {
	// Open runs when a window opens, Close when it closes. A window whose end
	// moves runs nothing.
	Open, Close Commands
	// Setup runs for each service when its guarding begins, so also whenever a
	// process starts: it should do no harm if it is run again. Teardown runs when a
	// service is guarded no more, and for all at a stop with knockcore.ExitRemove.
	Setup, Teardown []*Template
	// Runner runs them; nil means one with the defaults.
	Runner *Runner
	// Journal is the file that keeps what is open, "" for none. No two processes
	// may use the same.
	Journal string
	// Async lets Open and Close return at once. A command that fails then changes
	// nothing about the window: see Trouble. Otherwise a window whose command fails
	// does not open.
	Async bool
	// MaxWindows bounds the open windows, 0 for DefaultMaxWindows.
	MaxWindows int
	// Observe is told of each command that has run; nil means nobody wants to know.
	Observe func(Event)
}

// Event is a command that has run, or something else that went wrong.
type Event struct {
	Action Action
	Window knockcore.Window
	// Program is the program, "" if there was none to run.
	Program string
	Result
}

// Engine is a knockcore.Firewall that runs commands. It times the windows itself.
type Engine struct {
	mu       sync.Mutex
	cfg      Config
	services map[string]*knockcore.Service // nil before Setup and after Stop
	windows  map[key]*window
	journal  journal
	read     bool // the journal
}

type key struct {
	prefix  netip.Prefix
	service string
}

// window is a window on its way from what it is to what is wanted.
type window struct {
	key
	client string
	want   time.Time // until when; zero: closed
	open   bool      // its commands were run
	closes [][]string
	err    error
	failed int // attempts to close
	// busy is closed when what is wanted is reached; nil when it is.
	busy  chan struct{}
	timer *time.Timer
}

// closeRetries is when a failed attempt to close is made again.
var closeRetries = []time.Duration{time.Second, 10 * time.Second}

var errStopped = errors.New("the firewall is not set up")

// New makes an engine.
func New(cfg Config) *Engine {
	if cfg.Runner == nil {
		cfg.Runner = NewRunner(0, 0)
	}
	if cfg.MaxWindows <= 0 {
		cfg.MaxWindows = DefaultMaxWindows
	}
	return &Engine{cfg: cfg, windows: make(map[key]*window), journal: journal{path: cfg.Journal}}
}

// Configure changes the commands. Windows that are open close by those that they
// were opened along with. The journal stays where it is.
func (e *Engine) Configure(cfg Config) {
	fresh := New(cfg)
	e.mu.Lock()
	defer e.mu.Unlock()
	fresh.cfg.Journal = e.cfg.Journal
	e.cfg = fresh.cfg
}

// Check finds programs that are not there.
func (e *Engine) Check(context.Context) error {
	e.mu.Lock()
	cfg := e.cfg
	e.mu.Unlock()
	for _, list := range [][]*Template{cfg.Setup, cfg.Open.V4, cfg.Open.V6, cfg.Close.V4, cfg.Close.V6, cfg.Teardown} {
		for _, t := range list {
			if _, err := Find(t.Program()); err != nil {
				return err
			}
		}
	}
	return nil
}

// Setup implements knockcore.Firewall.
func (e *Engine) Setup(ctx context.Context, services []*knockcore.Service) error {
	if err := e.Check(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	former, cfg := e.services, e.cfg
	e.services = make(map[string]*knockcore.Service)
	for _, s := range services {
		e.services[s.Name] = s
	}
	if former == nil {
		if err := e.adopt(); err != nil {
			e.services = nil
			e.mu.Unlock()
			return fmt.Errorf("the journal of open windows: %w", err)
		}
	}
	var gone []*window
	for _, w := range e.windows {
		if e.services[w.service] == nil {
			w.want = time.Time{}
			e.settle(w)
			gone = append(gone, w)
		}
	}
	e.mu.Unlock()
	e.await(ctx, gone)
	for name, s := range former {
		if now := e.services[name]; now == nil || !slices.Equal(now.Ports, s.Ports) {
			e.runAll(ctx, ActionTeardown, cfg.Teardown, s)
		}
	}
	for _, s := range services {
		if f := former[s.Name]; f != nil && slices.Equal(f.Ports, s.Ports) {
			continue
		}
		if err := e.runAll(ctx, ActionSetup, cfg.Setup, s); err != nil {
			e.mu.Lock()
			delete(e.services, s.Name) // so that the next Setup tries again
			e.mu.Unlock()
			return fmt.Errorf("setting up service %s: %w", s.Name, err)
		}
	}
	return nil
}

// runAll runs the commands for a service and returns the first error.
func (e *Engine) runAll(ctx context.Context, action Action, list []*Template, s *knockcore.Service) error {
	var first error
	for _, t := range list {
		all, err := t.Expand(Values{Action: action, Service: s.Name}, s.Ports)
		for _, argv := range all {
			if err == nil {
				err = e.run(ctx, Event{Action: action, Window: knockcore.Window{Service: s.Name}}, argv)
			}
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (e *Engine) run(ctx context.Context, ev Event, argv []string) error {
	e.mu.Lock()
	cfg := e.cfg
	e.mu.Unlock()
	ev.Program, ev.Result = argv[0], cfg.Runner.Run(ctx, argv)
	if cfg.Observe != nil {
		cfg.Observe(ev)
	}
	return ev.Err
}

// note tells of what no command could be run for.
func (e *Engine) note(w *window, action Action, err error) {
	if e.cfg.Observe != nil {
		e.cfg.Observe(Event{Action: action, Window: w.window(), Result: Result{Err: err}})
	}
}

func (w *window) window() knockcore.Window {
	return knockcore.Window{Prefix: w.prefix, Service: w.service, Client: w.client, Expires: w.want}
}

// adopt takes over what a former process left open. After a reboot whatever
// lasted is closed: what was open must be opened anew.
func (e *Engine) adopt() error {
	if !e.read {
		open, again, err := readJournal(e.journal.path)
		if err != nil {
			return err
		}
		for k, old := range open {
			w := &window{key: k, client: old.Client, want: old.Expires, open: true, closes: old.Close}
			if !again {
				w.want, w.failed = time.Time{}, len(closeRetries)
			}
			e.windows[k] = w
		}
		e.read = true
	}
	if err := e.rewrite(); err != nil {
		return err
	}
	for _, w := range e.windows {
		e.settle(w)
	}
	return nil
}

func (e *Engine) rewrite() error {
	var open []entry
	for _, w := range e.windows {
		open = append(open, w.entry())
	}
	return e.journal.start(open)
}

func (w *window) entry() entry {
	until := w.want
	if until.IsZero() {
		until = time.Unix(1, 0) // to be closed at once
	}
	return entry{Prefix: w.prefix, Service: w.service, Client: w.client, Expires: until.Round(0), Close: w.closes}
}

// record writes the window to the journal; over says that it is closed. A full
// disk must not lock the owner out.
func (e *Engine) record(w *window, over bool) {
	line := w.entry()
	if over {
		line = entry{Prefix: w.prefix, Service: w.service}
	}
	err := e.journal.add(line)
	if err == nil && e.journal.long(len(e.windows)) {
		err = e.rewrite()
	}
	if err != nil {
		e.note(w, ActionOpen, fmt.Errorf("writing the journal of open windows: %w", err))
	}
}
