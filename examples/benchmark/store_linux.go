// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// store admits clients with the state in memory, on disk, and in Redis: one frame
// and one connection each.
func store(ctx context.Context, o options, r *report) error {
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	upstream, err := l.serve(echoByte)
	if err != nil {
		return err
	}
	n := o.some(2000)
	var subjects []subject
	for _, s := range []struct{ name, options string }{
		{"file (the default)", "store file"},
		{"memory", "store memory"},
		{"redis", ""},
	} {
		if s.name == "redis" {
			if err := need("redis-server"); err != nil {
				r.note("%v", err)
				continue
			}
			port, err := freePort()
			if err != nil {
				return err
			}
			p, err := l.launch("redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--dir", l.dir)
			if err != nil {
				return err
			}
			if err := l.awaitPort(port, p.log); err != nil {
				return err
			}
			s.options = fmt.Sprintf("store redis 127.0.0.1:%d {\n\t\t\ttimeout 10s\n\t\t}", port)
		}
		m, err := throughRelay(l, o.caddy, upstream, s.options+"\n\t\ttime_window 5s")
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := m.awaitAdmission(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		subjects = append(subjects, subject{s.name, nil, func(ctx context.Context) ([]float64, error) { return m.connectMany(ctx, n) }})
	}
	return r.compare(ctx, o.rounds, fmt.Sprintf("admissions, %d at a time", dialers), []quantity{
		{unit: "/s"}, {name: "p99 to the first byte", unit: "ms", less: true}, {name: "processor time in the middle", unit: "µs each", less: true},
	}, subjects...)
}

// awaitAdmission waits until somebody is admitted: with a new Redis, that is twice
// the time window after its start, in which it can't know what was spent before.
func (m *middle) awaitAdmission(ctx context.Context) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := m.exchange(ctx, nil)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
	}
}
