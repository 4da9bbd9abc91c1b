// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// The gaps between the attempts of Staggered: each is twice the one before.
const (
	firstGap = 25 * time.Millisecond
	lastGap  = time.Second
)

// Staggered makes connections to a port that a knock is about to open. A SYN
// that comes too early is lost, and TCP sends it again only after a second; so
// Staggered begins further attempts after 25, 50, 100, … milliseconds, up to one
// each second. The first that connects wins; the others are closed. An attempt
// that is refused is no reason to stop either.
type Staggered struct {
	// Base makes the connections; nil means a net.Dialer without settings.
	Base ContextDialer
	// Timeout bounds it all; 0 leaves that to the context.
	Timeout time.Duration
	// Attempt, if set, is called for each attempt that begins.
	Attempt func(to netip.AddrPort)
}

// connected is the end of one attempt.
type connected struct {
	conn net.Conn
	err  error
}

// Dial connects to one of the addresses, all of which are tried each time. The
// error tells of the last attempt that ended by itself.
func (d *Staggered) Dial(ctx context.Context, network string, addrs []netip.Addr, port uint16) (net.Conn, error) {
	if len(addrs) == 0 {
		return nil, errors.New("dialling: there is no address")
	}
	var cancel context.CancelFunc
	if d.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, d.Timeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel() // ends the attempts that lost
	base := d.Base
	if base == nil {
		base = new(net.Dialer)
	}
	results := make(chan connected)
	attempt := func(addr netip.Addr) {
		to := netip.AddrPortFrom(addr, port)
		if d.Attempt != nil {
			d.Attempt(to)
		}
		go func() {
			conn, err := base.DialContext(ctx, network, to.String())
			select {
			case results <- connected{conn, err}:
			case <-ctx.Done(): // Somebody else has won.
				if conn != nil {
					_ = conn.Close()
				}
			}
		}()
	}
	var last error
	for gap := firstGap; ; gap = min(2*gap, lastGap) {
		for _, addr := range addrs {
			attempt(addr)
		}
		conn, err := await(ctx, results, gap)
		switch {
		case conn != nil:
			return conn, nil
		case ctx.Err() != nil:
			return nil, dialError(network, addrs[0], port, errors.Join(context.Cause(ctx), last))
		case err != nil:
			last = err
		}
	}
}

// await waits for a connection until the gap is over. The error is that of the
// last attempt that failed meanwhile.
func await(ctx context.Context, results <-chan connected, gap time.Duration) (net.Conn, error) {
	timer := time.NewTimer(gap)
	defer timer.Stop()
	var last error
	for {
		select {
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			last = r.err
		case <-timer.C:
			return nil, last
		case <-ctx.Done():
			return nil, last
		}
	}
}

// dialError is an error such as net.Dialer gives.
func dialError(network string, addr netip.Addr, port uint16, err error) error {
	return &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, port)), Err: err}
}
