// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
)

// relay moves bytes through those who relay, on loopback. Clients and upstream are
// this process; processor time is that of the process in the middle.
func relay(ctx context.Context, o options, r *report) error {
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	upstream, err := l.serve(blob)
	if err != nil {
		return err
	}
	var middles []middle
	for _, start := range []func() (middle, error){
		func() (middle, error) { return throughRelay(l, o.caddy, upstream, "") },
		func() (middle, error) { return throughProxy(l, o.caddy, upstream, "") },
		func() (middle, error) { return throughHAProxy(l, upstream) },
		func() (middle, error) { return throughNginx(l, upstream) },
		func() (middle, error) { return direct(upstream), nil },
	} {
		m, err := start()
		switch {
		case errors.Is(err, errMissing):
			r.note("%v", err)
		case err != nil:
			return err
		default:
			middles = append(middles, m)
		}
	}
	goals := map[string]map[int]float64{"caddy-l4 proxy": {0: 2, 1: 0.5}, "HAProxy, splicing": {0: 1, 1: 1}, "direct": {0: 0.5}}
	for _, streams := range []int{1, 64} {
		for _, what := range []string{"down", "up"} {
			size := int64(o.some(256<<20)) / int64(streams)
			var subjects []subject
			for _, m := range middles {
				subjects = append(subjects, subject{m.name, goals[m.name], func(ctx context.Context) ([]float64, error) {
					return m.throughput(ctx, streams, what[0], size)
				}})
			}
			err := r.compare(ctx, o.rounds, fmt.Sprintf("%s, streams: %d", what, streams), []quantity{
				{name: "throughput", unit: "GB/s"}, {name: "processor time", unit: "s/GB", less: true},
			}, subjects...)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// throughput moves so many bytes through each of the streams, and tells gigabytes
// a second and the processor's seconds a gigabyte.
func (m *middle) throughput(ctx context.Context, streams int, direction byte, size int64) ([]float64, error) {
	used := func() (float64, error) {
		if m.process == nil {
			return 0, nil
		}
		return m.process.cpu()
	}
	before, err := used()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	all, ctx := errgroup.WithContext(ctx)
	for range streams {
		all.Go(func() error { return m.transfer(ctx, direction, size) })
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	took := time.Since(begin).Seconds()
	after, err := used()
	if err != nil {
		return nil, err
	}
	gigabytes := float64(size) * float64(streams) / 1e9
	if m.process == nil {
		return []float64{gigabytes / took, none}, nil
	}
	return []float64{gigabytes / took, (after - before) / gigabytes}, nil
}

// transfer gets bytes from upstream ('d'), or sends them there ('u') and waits for
// the receipt.
func (m *middle) transfer(ctx context.Context, direction byte, size int64) error {
	head, err := m.head()
	if err != nil {
		return err
	}
	conn, err := m.dial(ctx, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	head = append(head, direction)
	for shift := 56; shift >= 0; shift -= 8 {
		head = append(head, byte(size>>shift))
	}
	if _, err := conn.Write(head); err != nil {
		return err
	}
	if direction == 'd' {
		return drain(conn, size)
	}
	if err := fill(conn, size); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// blob is the upstream of transfer.
func blob(conn net.Conn) error {
	var head [9]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	var size int64
	for _, b := range head[1:] {
		size = size<<8 | int64(b)
	}
	if head[0] == 'd' {
		return fill(conn, size)
	}
	if err := drain(conn, size); err != nil {
		return err
	}
	_, err := conn.Write(head[:1])
	return err
}

var block = make([]byte, 256<<10)

// fill writes so many bytes.
func fill(conn net.Conn, size int64) error {
	for size > 0 {
		n, err := conn.Write(block[:min(size, int64(len(block)))])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// drain reads so many bytes.
func drain(conn net.Conn, size int64) error {
	room := make([]byte, len(block))
	for size > 0 {
		n, err := conn.Read(room)
		if size -= int64(n); err != nil && size > 0 {
			return fmt.Errorf("%d bytes before the end: %w", size, err)
		}
	}
	return nil
}

// serve runs a TCP service on loopback until the lab is closed.
func (l *lab) serve(handle func(net.Conn) error) (port int, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	l.ends = append(l.ends, func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = handle(conn) // whoever waits for the answer sees that there is none
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port, nil
}
