// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Open implements knockcore.Firewall.
func (e *Engine) Open(ctx context.Context, windows ...knockcore.Window) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var wait, fresh []*window
	e.mu.Lock()
	now := time.Now()
	err := e.admissible(windows, now)
	if err != nil {
		e.mu.Unlock()
		return err
	}
	for _, asked := range windows {
		k := key{knockcore.NormalPrefix(asked.Prefix), asked.Service}
		w := e.windows[k]
		if w == nil {
			w = &window{key: k}
			e.windows[k] = w
		}
		if !w.open {
			fresh = append(fresh, w)
		}
		if w.want = asked.Expires; asked.Client != "" {
			w.client = asked.Client
		}
		if w.open {
			e.record(w, false)
		}
		e.settle(w)
		wait = append(wait, w)
	}
	async := e.cfg.Async
	e.mu.Unlock()
	if async {
		return nil
	}
	if err = e.await(ctx, wait); err == nil {
		return nil
	}
	// Nobody will close what the caller believes shut.
	e.mu.Lock()
	for _, w := range fresh {
		if e.windows[w.key] == w {
			w.want = time.Time{}
			e.settle(w)
		}
	}
	e.mu.Unlock()
	return err
}

// admissible reports whether all of the windows may open.
func (e *Engine) admissible(windows []knockcore.Window, now time.Time) error {
	if e.services == nil {
		return errStopped
	}
	more := 0
	for _, w := range windows {
		p := knockcore.NormalPrefix(w.Prefix)
		switch {
		case e.services[w.Service] == nil:
			return fmt.Errorf("there is no service %q here", w.Service)
		case !p.IsValid():
			return errors.New("the window is for no address")
		case !w.Expires.After(now):
			return errors.New("the window's time is over")
		}
		if e.windows[key{p, w.Service}] == nil {
			more++
		}
	}
	if len(e.windows)+more > e.cfg.MaxWindows {
		return fmt.Errorf("more than %d windows would be open", e.cfg.MaxWindows)
	}
	return nil
}

// Close implements knockcore.Firewall.
func (e *Engine) Close(ctx context.Context, windows ...knockcore.Window) error {
	var wait []*window
	e.mu.Lock()
	for _, asked := range windows {
		w := e.windows[key{knockcore.NormalPrefix(asked.Prefix), asked.Service}]
		if w == nil {
			continue
		}
		w.want = time.Time{}
		e.settle(w)
		wait = append(wait, w)
	}
	async := e.cfg.Async
	e.mu.Unlock()
	if async {
		return nil
	}
	return e.await(ctx, wait)
}

// List implements knockcore.Firewall.
func (e *Engine) List(context.Context) ([]knockcore.Window, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []knockcore.Window
	for _, w := range e.windows {
		if w.open {
			list = append(list, w.window())
		}
	}
	return list, nil
}

// Trouble implements knockcore.Troubled.
func (e *Engine) Trouble(asked knockcore.Window) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w := e.windows[key{knockcore.NormalPrefix(asked.Prefix), asked.Service}]; w != nil {
		return w.err
	}
	return nil
}

// Stop implements knockcore.Firewall. With knockcore.ExitKeep windows stay open:
// those whose time is over by then are closed when the next process starts.
func (e *Engine) Stop(ctx context.Context, mode knockcore.ExitMode) error {
	e.mu.Lock()
	services, teardown := e.services, e.cfg.Teardown
	e.services = nil
	if services == nil {
		e.mu.Unlock()
		return nil
	}
	var wait []*window
	for _, w := range e.windows {
		if mode != knockcore.ExitKeep {
			w.want = time.Time{}
			e.settle(w)
		}
		if w.timer != nil {
			w.timer.Stop()
		}
		wait = append(wait, w)
	}
	e.mu.Unlock()
	err := e.await(ctx, wait)
	if mode == knockcore.ExitRemove {
		for _, s := range services {
			err = errors.Join(err, e.runAll(ctx, ActionTeardown, teardown, s))
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.services == nil {
		e.journal.close()
	}
	return err
}

// await waits until the windows are as wanted, and returns the first error.
func (e *Engine) await(ctx context.Context, windows []*window) error {
	var first error
	for _, w := range windows {
		e.mu.Lock()
		busy := w.busy
		e.mu.Unlock()
		if busy != nil {
			select {
			case <-busy:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		e.mu.Lock()
		err := w.err
		e.mu.Unlock()
		if first == nil {
			first = err
		}
	}
	return first
}

// settle brings a window to what is wanted, in the background. The caller holds
// the lock.
func (e *Engine) settle(w *window) {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	if w.busy == nil {
		w.busy = make(chan struct{})
		go e.work(w)
	}
}

func (e *Engine) work(w *window) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		wanted := w.want.After(time.Now())
		switch {
		case wanted && (!w.open || w.failed > 0) && e.services[w.service] != nil:
			e.opens(w)
			continue
		case wanted && w.open:
			if e.services != nil {
				w.timer = time.AfterFunc(time.Until(w.want), func() { e.over(w) })
			}
		case w.open && w.failed <= len(closeRetries):
			if e.closes(w) || w.want.After(time.Now()) {
				continue
			}
			if w.failed <= len(closeRetries) { // it stays on the list
				w.timer = time.AfterFunc(closeRetries[w.failed-1], func() { e.over(w) })
				break
			}
			e.note(w, ActionClose, errors.New("giving up: what it opened may still be open"))
			fallthrough
		default:
			if e.windows[w.key] == w {
				delete(e.windows, w.key)
				e.record(w, true)
			}
			w.open = false
		}
		close(w.busy)
		w.busy = nil
		return
	}
}

// over is what a window's timer does.
func (e *Engine) over(w *window) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.windows[w.key] == w {
		e.settle(w)
	}
}

// opens runs the commands that open. The lock is released meanwhile.
func (e *Engine) opens(w *window) {
	cfg, service := e.cfg, e.services[w.service]
	v := Values{Action: ActionOpen, Prefix: w.prefix, Client: w.client, Service: w.service}
	open, err := expand(cfg.Open.of(w.prefix), v, service)
	v.Action = ActionClose
	closes, closeErr := expand(cfg.Close.of(w.prefix), v, service)
	if err = errors.Join(err, closeErr); err != nil {
		e.note(w, ActionOpen, err)
		w.err, w.want = err, time.Time{}
		return
	}
	// From here on it counts as open: what is half done is undone.
	w.open, w.closes, w.err, w.failed = true, closes, nil, 0
	e.record(w, false)
	ev := Event{Action: ActionOpen, Window: w.window()}
	e.mu.Unlock()
	for _, argv := range open {
		if err = e.run(context.Background(), ev, argv); err != nil {
			break
		}
	}
	e.mu.Lock()
	if w.err = err; err != nil && !cfg.Async {
		w.want, w.failed = time.Time{}, len(closeRetries) // undone once
	}
}

// closes runs the commands that close, all of them whatever happens, and reports
// whether the window is closed. The lock is released meanwhile.
func (e *Engine) closes(w *window) bool {
	ev := Event{Action: ActionClose, Window: w.window()}
	list := w.closes
	e.mu.Unlock()
	var failed error
	for _, argv := range list {
		if err := e.run(context.Background(), ev, argv); err != nil && failed == nil {
			failed = err
		}
	}
	e.mu.Lock()
	if failed != nil {
		w.failed++
		if w.err == nil { // why it did not open says more
			w.err = failed
		}
		return false
	}
	w.open = false
	return true
}

func expand(list []*Template, v Values, s *knockcore.Service) ([][]string, error) {
	var all [][]string
	for _, t := range list {
		argvs, err := t.Expand(v, s.Ports)
		if err != nil {
			return nil, err
		}
		all = append(all, argvs...)
	}
	return all, nil
}

// Interface guards
var (
	_ knockcore.Firewall = (*Engine)(nil)
	_ knockcore.Checker  = (*Engine)(nil)
	_ knockcore.Troubled = (*Engine)(nil)
)
