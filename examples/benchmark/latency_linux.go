// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// latency measures how long it takes from knocking until a connection stands: with
// the client programs, and without them, from the last packet of the knock on.
func latency(ctx context.Context, o options, r *report) error {
	if err := need("ip", "nft"); err != nil {
		return err
	}
	var arenas []*arena
	defer func() {
		for _, a := range arenas {
			a.close()
		}
	}()
	for _, c := range []struct {
		contestant
		needs []string
	}{
		{withCaddy(o.caddy, o.client), nil},
		{withKnockd(), []string{"knockd", "knock"}},
		{withFwknop(), []string{"fwknopd", "fwknop", "iptables"}},
		{bare(), nil},
	} {
		if err := need(c.needs...); err != nil {
			r.note("%s: %v", c.name, err)
			continue
		}
		a, err := newArena(ctx, c.contestant)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		arenas = append(arenas, a)
	}
	milliseconds := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	var programs, packets []subject
	for _, a := range arenas {
		goals := map[int]float64{0: 0.1}
		switch a.name {
		case "bare netlink insert":
			goals = map[int]float64{0: 2}
		case arenas[0].name:
			goals = nil
		}
		packets = append(packets, subject{a.name, goals, func(ctx context.Context) ([]float64, error) {
			total, _, err := a.once(ctx, a.packets)
			return []float64{milliseconds(total)}, err
		}})
		if a.knock != nil {
			programs = append(programs, subject{a.name, nil, func(ctx context.Context) ([]float64, error) {
				total, rest, err := a.once(ctx, a.program)
				return []float64{milliseconds(total), milliseconds(rest)}, err
			}})
		}
	}
	rounds := 8 * o.rounds
	err := r.compare(ctx, rounds, "packets sent to connection", []quantity{{unit: "ms", less: true}}, packets...)
	if err != nil {
		return err
	}
	return r.compare(ctx, rounds, "client program to connection", []quantity{
		{name: "from its start", unit: "ms", less: true}, {name: "from its end", unit: "ms", less: true},
	}, programs...)
}

// arena is a host with a contestant, and a client.
type arena struct {
	contestant
	*lab
	client string
	knocks int
}

func newArena(ctx context.Context, c contestant) (a *arena, err error) {
	l, err := newLab(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	host, err := l.space("host")
	if err != nil {
		return nil, err
	}
	client, err := l.space("client")
	if err != nil {
		return nil, err
	}
	if err := l.link(host, "eth0", "192.0.2.1/24", client, "eth0", "192.0.2.2/24"); err != nil {
		return nil, err
	}
	if err := inside(host, func() error {
		ln, err := net.Listen("tcp", "192.0.2.1:22")
		if err == nil {
			l.ends = append(l.ends, func() { _ = ln.Close() })
		}
		return err
	}); err != nil {
		return nil, err
	}
	return &arena{contestant: c, lab: l, client: client}, c.serve(l, host)
}

// knocking is a way to knock: ended gets nil when all is sent.
type knocking func(ctx context.Context) (begin func() error, ended <-chan error, err error)

// program knocks with the client program.
func (a *arena) program(ctx context.Context) (func() error, <-chan error, error) {
	cmd := exec.CommandContext(ctx, a.knock[0], a.knock[1:]...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	ended := make(chan error, 1)
	return func() error {
		if err := cmd.Start(); err != nil { // on this thread, so in this namespace
			return err
		}
		go func() {
			err := cmd.Wait()
			if err != nil {
				err = fmt.Errorf("%s: %w: %s", strings.Join(a.knock, " "), err, said.String())
			}
			ended <- err
		}()
		return nil
	}, ended, nil
}

// packets knocks without it.
func (a *arena) packets(context.Context) (func() error, <-chan error, error) {
	send, err := a.send()
	ended := make(chan error, 1)
	ended <- nil
	return send, ended, err
}

// once knocks from an address that did not knock before. rest is the time after
// the knock was sent, 0 if the connection stood before.
func (a *arena) once(ctx context.Context, way knocking) (total, rest time.Duration, err error) {
	if err := a.in(a.client, "ip", "addr", "flush", "dev", "eth0", "scope", "global"); err != nil {
		return 0, 0, err
	}
	if err := a.in(a.client, "ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", 10+a.knocks%240), "dev", "eth0"); err != nil {
		return 0, 0, err
	}
	a.knocks++
	err = inside(a.client, func() error {
		begin, ended, err := way(ctx)
		if err != nil {
			return err
		}
		total, rest, err = untilOpen(ctx, begin, ended)
		return err
	})
	return total, rest, err
}

// probes is how often a connection is tried, and for how long at most.
const (
	probes  = 200 * time.Microsecond
	patient = 30 * time.Second
)

// untilOpen knocks and tries to connect all the time, each time anew: TCP itself
// would repeat a lost SYN after a second only.
func untilOpen(ctx context.Context, knock func() error, ended <-chan error) (total, rest time.Duration, err error) {
	begin := time.Now()
	if err := knock(); err != nil {
		return 0, 0, err
	}
	var end time.Time
	var tries []unix.PollFd
	defer func() {
		for _, p := range tries {
			_ = unix.Close(int(p.Fd))
		}
	}()
	for ctx.Err() == nil {
		select {
		case err := <-ended:
			if end = time.Now(); err != nil {
				return 0, 0, err
			}
		default:
		}
		fd, err := syn(22)
		if err != nil {
			return 0, 0, fmt.Errorf("connecting: %w", err)
		}
		tries = append(tries, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
		wait := unix.NsecToTimespec(int64(probes))
		if _, err := unix.Ppoll(tries, &wait, nil); err != nil && err != unix.EINTR {
			return 0, 0, err
		}
		for _, p := range tries {
			if p.Revents&unix.POLLOUT == 0 {
				continue
			}
			if code, err := unix.GetsockoptInt(int(p.Fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
				return 0, 0, fmt.Errorf("connecting: %w", unix.Errno(code))
			}
			now := time.Now()
			if end.IsZero() { // it stood before the knock had ended
				return now.Sub(begin), 0, <-ended
			}
			return now.Sub(begin), now.Sub(end), nil
		}
		if time.Since(begin) > patient {
			return 0, 0, fmt.Errorf("the port does not open within %v", patient)
		}
		if len(tries) > 200 {
			_ = unix.Close(int(tries[0].Fd))
			tries = tries[1:]
		}
	}
	return 0, 0, ctx.Err()
}
