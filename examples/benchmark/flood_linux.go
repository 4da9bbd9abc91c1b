// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
)

// receiver is a host with a UDP source and a gatekeeper, as Caddy has them, and
// another host to send from.
type receiver struct {
	*lab
	client string
	last   knockcore.Credential // of the last client

	granted, refused atomic.Int64
	// told, if set, is called with every decision.
	told atomic.Pointer[func(p *source.Packet, granted bool)]
}

func newReceiver(ctx context.Context, clients int) (rx *receiver, err error) {
	l, err := newLab(ctx)
	if err != nil {
		return nil, err
	}
	rx = &receiver{lab: l}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	host, err := l.space("host")
	if err != nil {
		return nil, err
	}
	if rx.client, err = l.space("client"); err != nil {
		return nil, err
	}
	if err := l.link(host, "eth0", "192.0.2.1/24", rx.client, "eth0", "192.0.2.2/24"); err != nil {
		return nil, err
	}
	if err := l.in(rx.client, "ip", "addr", "add", "192.0.2.3/24", "dev", "eth0"); err != nil {
		return nil, err
	}
	gate, err := gateFor(clientsOf(clients), 0, knockcore.NewMemoryStore(1<<20))
	if err != nil {
		return nil, err
	}
	rx.last = gate.Keyring().Credentials()[clients-1]
	dispatcher := source.NewDispatcher(source.DispatchConfig{Methods: knockcore.NewMethodSet(source.DatagramMethods...)}, gate)
	queue := source.NewQueue(source.QueueConfig{Limits: gate.Limits(), Handle: func(ctx context.Context, p *source.Packet) {
		err := dispatcher.Decide(ctx, p)
		if err == nil {
			rx.granted.Add(1)
		} else {
			rx.refused.Add(1)
		}
		if told := rx.told.Load(); told != nil {
			(*told)(p, err == nil)
		}
	}})
	packets := source.NewSwitch(new(source.Stats))
	packets.Attach(queue)
	var u *source.UDP
	if err := inside(host, func() (err error) {
		u, err = source.ListenUDP(netip.MustParseAddrPort("0.0.0.0:62201"))
		return err
	}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- u.Serve(ctx, packets.Sink) }()
	l.ends = append(l.ends, func() {
		cancel()
		<-served
		_ = u.Close()
		queue.Close(context.Background())
	})
	return rx, nil
}

// sender is a socket of the other host.
func (rx *receiver) sender(from string) (conn *net.UDPConn, err error) {
	err = inside(rx.client, func() (err error) {
		conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 62201})
		return err
	})
	return conn, err
}

// pour sends datagrams as fast as one thread can, in circles, until ctx is done, but
// some in any case.
func pour(ctx context.Context, conn net.PacketConn, datagrams [][]byte) (sent int, err error) {
	batch := make([]ipv4.Message, 64)
	for i := range batch {
		batch[i].Buffers = make([][]byte, 1)
	}
	out := ipv4.NewPacketConn(conn)
	for sent == 0 || ctx.Err() == nil {
		for i := range batch {
			batch[i].Buffers[0] = datagrams[(sent+i)%len(datagrams)]
		}
		n, err := out.WriteBatch(batch, 0)
		if err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// flooded pours junk as fast as one thread can, and knocks meanwhile.
func flooded(ctx context.Context, o options, r *report) error {
	measure := func(ctx context.Context) ([]float64, error) {
		rx, err := newReceiver(ctx, 100)
		if err != nil {
			return nil, err
		}
		defer rx.close()
		junk := make([][]byte, 64)
		for i := range junk { // the shape of knocks, for which every client is tried
			junk[i] = make([]byte, 114)
			junk[i][0], junk[i][25], junk[i][26] = byte(i), 114-28, 2
		}
		knocks, err := sealed(&rx.last, max(20, o.some(400)))
		if err != nil {
			return nil, err
		}
		var mu sync.Mutex
		sent, took := make(map[[16]byte]time.Time), make([]float64, 0, len(knocks))
		friend := netip.MustParseAddr("192.0.2.3")
		told := func(p *source.Packet, granted bool) {
			if !granted || p.From.Addr() != friend {
				return
			}
			now := time.Now()
			mu.Lock()
			defer mu.Unlock()
			took = append(took, now.Sub(sent[[16]byte(p.Payload)]).Seconds()*1000)
		}
		admitted := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(took)
		}
		rx.told.Store(&told)
		from, err := rx.sender("192.0.2.2")
		if err != nil {
			return nil, err
		}
		defer from.Close()
		conn, err := rx.sender(friend.String())
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		before := heapInUse()
		flood, stop := context.WithCancel(ctx)
		defer stop()
		poured, floodErr := 0, error(nil)
		done := make(chan struct{})
		begin := time.Now()
		go func() {
			defer close(done)
			runtime.LockOSThread()
			poured, floodErr = pour(flood, from, junk)
		}()
		for _, knock := range knocks {
			mu.Lock()
			sent[[16]byte(knock)] = time.Now()
			mu.Unlock()
			if _, err := conn.Write(knock); err != nil {
				return nil, err
			}
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond) // for the last ones, still under the flood
		stop()
		<-done
		elapsed := time.Since(begin).Seconds()
		grown := float64(int64(heapInUse())-int64(before)) / 1024
		// When it is run for a moment only, none may have been decided yet, or all been
		// lost before the socket.
		for late := time.Now().Add(20 * time.Second); admitted() == 0 && time.Now().Before(late); {
			if _, err := conn.Write(knocks[0]); err != nil {
				return nil, err
			}
			time.Sleep(5 * time.Millisecond)
		}
		mu.Lock()
		defer mu.Unlock()
		if floodErr != nil {
			return nil, fmt.Errorf("flood: %w", floodErr)
		}
		if len(took) == 0 {
			return nil, errors.New("no knock was admitted")
		}
		slices.Sort(took)
		return []float64{100 * float64(len(took)) / float64(len(knocks)), took[len(took)*99/100], grown, float64(poured) / elapsed}, nil
	}
	return r.compare(ctx, min(o.rounds, 3), "knocks under a flood of junk, clients: 100", []quantity{
		{name: "admitted", unit: "%"}, {name: "p99", unit: "ms", less: true}, {name: "heap grown by", unit: "KiB", less: true}, {name: "junk", unit: "/s"},
	}, subject{"knocks at 200/s", map[int]float64{0: 100, 1: 20}, measure})
}
