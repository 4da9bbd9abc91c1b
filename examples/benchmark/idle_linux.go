// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// idle measures what a relayed connection costs that does nothing, each time in a
// process that was just started.
func idle(ctx context.Context, o options, r *report) error {
	n := o.some(2000)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	// This process has both ends, and that in the middle as many; HAProxy wants
	// room for splicing besides.
	if most := (int(limit.Cur) - 1000) / 4; n > most {
		n = most
		r.note("%d connections, for this process may have %d files", n, limit.Cur)
	}
	quantities := []quantity{{name: "memory", unit: "KiB", less: true}, {name: "files", unit: "", less: true}}
	fresh := func(start func(*lab, int) (middle, error)) func(context.Context) ([]float64, error) {
		return func(ctx context.Context) ([]float64, error) {
			l, err := newLab(ctx)
			if err != nil {
				return nil, err
			}
			defer l.close()
			upstream, err := l.serve(echoByte)
			if err != nil {
				return nil, err
			}
			m, err := start(l, upstream)
			if err != nil {
				return nil, err
			}
			return m.hold(ctx, n)
		}
	}
	return r.compare(ctx, min(o.rounds, 3), fmt.Sprintf("each of %d connections", n), quantities,
		subject{"knock_relay", nil, fresh(func(l *lab, up int) (middle, error) { return throughRelay(l, o.caddy, up, "") })},
		subject{"caddy-l4 proxy", map[int]float64{0: 1, 1: 1}, fresh(func(l *lab, up int) (middle, error) { return throughProxy(l, o.caddy, up, "") })},
		subject{"HAProxy, splicing", nil, fresh(throughHAProxy)},
		subject{"nginx stream", nil, fresh(throughNginx)},
	)
}

// settles is how long a process has for putting away what it needs no more.
const settles = time.Second

// hold opens n connections, sends a byte to and fro through each, and tells KiB
// and files that each occupies in the middle while it waits.
func (m *middle) hold(ctx context.Context, n int) ([]float64, error) {
	if err := m.exchange(ctx, nil); err != nil { // what is made at the first time
		return nil, err
	}
	memory, err := m.process.resident()
	if err != nil {
		return nil, err
	}
	files := m.process.files()
	held := make([]net.Conn, n)
	defer func() {
		for _, conn := range held {
			if conn != nil {
				_ = conn.Close()
			}
		}
	}()
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(dialers)
	for i := range held {
		all.Go(func() (err error) {
			held[i], err = m.open(ctx, net.IPv4(127, 0, 1, byte(1+i%250)))
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	time.Sleep(settles)
	after, err := m.process.resident()
	if err != nil {
		return nil, err
	}
	return []float64{(after - memory) / 1024 / float64(n), float64(m.process.files()-files) / float64(n)}, nil
}
