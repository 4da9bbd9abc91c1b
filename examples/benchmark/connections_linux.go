// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// dialers is how many connections are made at the same time.
const dialers = 16

// connections makes new connections through Caddy, each with one byte to and fro:
// with a frame v2 and knock_relay, with caddy-l4's proxy and nothing else, and with
// its TLS and client certificates before the proxy.
func connections(ctx context.Context, o options, r *report) error {
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	upstream, err := l.serve(echoByte)
	if err != nil {
		return err
	}
	knocked, err := throughRelay(l, o.caddy, upstream, "")
	if err != nil {
		return err
	}
	proxied, err := throughProxy(l, o.caddy, upstream, "")
	if err != nil {
		return err
	}
	encrypted, err := throughTLS(l, o.caddy, upstream)
	if err != nil {
		return err
	}
	logging, err := throughLoggingRelay(l, o.caddy, upstream, "", "")
	if err != nil {
		return err
	}
	n := o.some(2000)
	newPerSecond := func(m middle) func(context.Context) ([]float64, error) {
		return func(ctx context.Context) ([]float64, error) { return m.connectMany(ctx, n) }
	}
	return r.compare(ctx, 2*o.rounds, fmt.Sprintf("new, %d at a time", dialers), []quantity{
		{unit: "/s"}, {name: "p99 to the first byte", unit: "ms", less: true}, {name: "processor time in the middle", unit: "µs each", less: true},
	},
		subject{"frame v2, knock_relay", nil, newPerSecond(knocked)},
		subject{"caddy-l4 proxy, no authentication", map[int]float64{0: 0.9}, newPerSecond(proxied)},
		subject{"frame v2, knock_relay, with its log as it is by default", nil, newPerSecond(logging)},
		subject{"caddy-l4 tls with client certificates, proxy", map[int]float64{0: 3}, newPerSecond(encrypted)},
	)
}

// connectMany makes n connections and tells how many that were a second, the p99
// in milliseconds, and the processor time that they cost in the middle.
func (m *middle) connectMany(ctx context.Context, n int) ([]float64, error) {
	before, err := m.process.cpu()
	if err != nil {
		return nil, err
	}
	took := make([]float64, n)
	var next atomic.Int64
	all, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for range dialers {
		all.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				start := time.Now()
				if err := m.exchange(ctx, net.IPv4(127, 0, 1, byte(1+i%250))); err != nil {
					return err
				}
				took[i] = time.Since(start).Seconds() * 1000
			}
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	elapsed := time.Since(begin).Seconds()
	after, err := m.process.cpu()
	if err != nil {
		return nil, err
	}
	slices.Sort(took)
	return []float64{float64(n) / elapsed, took[n*99/100], (after - before) * 1e6 / float64(n)}, nil
}

// exchange makes one connection, sends a byte and gets it back.
func (m *middle) exchange(ctx context.Context, from net.IP) error {
	conn, err := m.open(ctx, from)
	if err != nil {
		return err
	}
	return conn.Close()
}

// open makes a connection through which a byte went and came back.
func (m *middle) open(ctx context.Context, from net.IP) (net.Conn, error) {
	head, err := m.head()
	if err != nil {
		return nil, err
	}
	conn, err := m.dial(ctx, from)
	if err != nil {
		return nil, err
	}
	if m.tls != nil {
		conn = tls.Client(conn, m.tls)
	}
	if _, err := conn.Write(append(head, '!')); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: no byte came back: %w", m.name, err), conn.Close())
	}
	return conn, nil
}

var rooms = sync.Pool{New: func() any { b := make([]byte, 16); return &b }}

// echoByte is the upstream of open: it holds no more than it must while nothing
// comes.
func echoByte(conn net.Conn) error {
	for {
		room := rooms.Get().(*[]byte)
		n, err := conn.Read(*room)
		if err == nil {
			_, err = conn.Write((*room)[:n])
		}
		rooms.Put(room)
		if err != nil {
			return err
		}
	}
}
